package qmp

import (
	"context"
	"fmt"
)

// Version of QEMU.
type Version struct {
	QEMU struct {
		Major int `json:"major"`
		Minor int `json:"minor"`
		Micro int `json:"micro"`
	} `json:"qemu"`
	Package string `json:"package"`
}

// String is like "QEMU 7.2.19".
func (v Version) String() string {
	return fmt.Sprintf("QEMU %d.%d.%d", v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro)
}

// Status is how a VM executes (QEMU qapi/run-state.json, RunState).
type Status struct {
	Running bool   `json:"running"`
	Status  string `json:"status"`
}

// QueryStatus asks how the VM executes.
func (c *Client) QueryStatus(ctx context.Context) (s Status, err error) {
	err = c.Execute(ctx, "query-status", nil, &s)
	return s, err
}

// QueryVersion asks for QEMU's version.
func (c *Client) QueryVersion(ctx context.Context) (v Version, err error) {
	err = c.Execute(ctx, "query-version", nil, &v)
	return v, err
}

// QueryName asks for the guest's name; it is empty if it has none.
func (c *Client) QueryName(ctx context.Context) (string, error) {
	var r struct {
		Name string `json:"name"`
	}
	err := c.Execute(ctx, "query-name", nil, &r)
	return r.Name, err
}

// QueryUUID asks for the guest's UUID; it is all zero if it has none.
func (c *Client) QueryUUID(ctx context.Context) (string, error) {
	var r struct {
		UUID string `json:"UUID"`
	}
	err := c.Execute(ctx, "query-uuid", nil, &r)
	return r.UUID, err
}

// QueryMemory asks for the size of the guest's memory in bytes, with what was
// plugged in later.
func (c *Client) QueryMemory(ctx context.Context) (int64, error) {
	var r struct {
		Base    int64 `json:"base-memory"`
		Plugged int64 `json:"plugged-memory"`
	}
	err := c.Execute(ctx, "query-memory-size-summary", nil, &r)
	return r.Base + r.Plugged, err
}

// Cont executes the VM. During an incoming migration it means "when loaded".
func (c *Client) Cont(ctx context.Context) error { return c.Execute(ctx, "cont", nil, nil) }

// Stop stops the VM.
func (c *Client) Stop(ctx context.Context) error { return c.Execute(ctx, "stop", nil, nil) }

// Quit ends the process. It may hang up before it answers.
func (c *Client) Quit(ctx context.Context) error { return c.Execute(ctx, "quit", nil, nil) }

// HumanMonitor runs a command of the human monitor and returns its text.
func (c *Client) HumanMonitor(ctx context.Context, line string) (text string, err error) {
	err = c.Execute(ctx, "human-monitor-command", map[string]any{"command-line": line}, &text)
	return text, err
}

// YankMigration shuts the sockets of a migration down, out of band: it helps
// when QEMU is stuck in one of them (QEMU 6.0 and later).
func (c *Client) YankMigration(ctx context.Context) error {
	return c.ExecuteOOB(ctx, "yank", map[string]any{
		"instances": []map[string]string{{"type": "migration"}},
	}, nil)
}
