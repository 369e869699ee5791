package qmp

import "context"

// A BlockDevice is a disk as the guest has it, with what is behind it.
type BlockDevice struct {
	Device   string `json:"device"` // of -drive; may be empty
	QDev     string `json:"qdev"`   // path or id of the guest's device
	Inserted *struct {
		NodeName string `json:"node-name"`
		File     string `json:"file"`
		ReadOnly bool   `json:"ro"`
		Driver   string `json:"drv"`
		Image    struct {
			VirtualSize int64 `json:"virtual-size"` // bytes
		} `json:"image"`
	} `json:"inserted"`
}

// QueryBlock asks for the VM's disks.
func (c *Client) QueryBlock(ctx context.Context) (list []BlockDevice, err error) {
	err = c.Execute(ctx, "query-block", nil, &list)
	return list, err
}

// A BlockNode is a node of the block graph.
type BlockNode struct {
	NodeName string `json:"node-name"`
	File     string `json:"file"`
	Driver   string `json:"drv"`
	ReadOnly bool   `json:"ro"`
}

// QueryNamedBlockNodes asks for the nodes of the block graph, without what
// is behind them.
func (c *Client) QueryNamedBlockNodes(ctx context.Context) (list []BlockNode, err error) {
	err = c.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &list)
	return list, err
}

// NBDServerStart makes QEMU serve exports at a unix socket.
func (c *Client) NBDServerStart(ctx context.Context, path string) error {
	return c.Execute(ctx, "nbd-server-start", map[string]any{
		"addr": map[string]any{"type": "unix", "data": map[string]any{"path": path}},
	}, nil)
}

// NBDServerStop ends the server and its exports.
func (c *Client) NBDServerStop(ctx context.Context) error {
	return c.Execute(ctx, "nbd-server-stop", nil, nil)
}

// BlockExportAdd exports a node over NBD, writable, under its own name.
func (c *Client) BlockExportAdd(ctx context.Context, id, node string) error {
	return c.Execute(ctx, "block-export-add", map[string]any{
		"type": "nbd", "id": id, "node-name": node, "name": node, "writable": true,
	}, nil)
}

// BlockExportDel ends an export.
func (c *Client) BlockExportDel(ctx context.Context, id string) error {
	return c.Execute(ctx, "block-export-del", map[string]any{"id": id}, nil)
}

// BlockdevAdd adds a node; options are those of its driver.
func (c *Client) BlockdevAdd(ctx context.Context, options map[string]any) error {
	return c.Execute(ctx, "blockdev-add", options, nil)
}

// BlockdevDel removes a node.
func (c *Client) BlockdevDel(ctx context.Context, node string) error {
	return c.Execute(ctx, "blockdev-del", map[string]any{"node-name": node}, nil)
}

// Mirror says how to copy a disk.
type Mirror struct {
	Job    string `json:"job-id"`
	Device string `json:"device"`
	Target string `json:"target"`
	Sync   string `json:"sync"`                // "full" or "top"
	Mode   string `json:"copy-mode,omitempty"` // "background" or "write-blocking"
	Speed  int64  `json:"speed,omitempty"`     // bytes per second
}

// BlockdevMirror begins to copy a disk to another node, and to keep it equal.
func (c *Client) BlockdevMirror(ctx context.Context, m Mirror) error {
	return c.Execute(ctx, "blockdev-mirror", m, nil)
}

// BlockJobFinish ends a mirror that is ready, so that its target is complete.
func (c *Client) BlockJobFinish(ctx context.Context, job string) error {
	return c.Execute(ctx, "block-job-cancel", map[string]any{"device": job, "force": false}, nil)
}

// BlockJobCancel ends a mirror at once; its target is good for nothing.
func (c *Client) BlockJobCancel(ctx context.Context, job string) error {
	return c.Execute(ctx, "block-job-cancel", map[string]any{"device": job, "force": true}, nil)
}
