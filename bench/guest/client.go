package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// A Client asks a guest. It is safe for concurrent use; one request at a time
// is under way.
type Client struct {
	mu   sync.Mutex // held for a whole exchange: answers come in order
	conn net.Conn
	in   *bufio.Reader
}

// NewClient takes a connection to the guest's control.Port.
func NewClient(conn net.Conn) *Client {
	return &Client{conn: conn, in: bufio.NewReader(conn)}
}

// Close hangs up.
func (c *Client) Close() error { return c.conn.Close() }

// Stats of the guest.
func (c *Client) Stats(ctx context.Context) (control.Stats, error) {
	r, err := c.do(ctx, control.Request{Op: control.OpStats})
	if err != nil {
		return control.Stats{}, err
	}
	return *r.Stats, nil
}

// SetDirty changes how the guest dirties memory and disk.
func (c *Client) SetDirty(ctx context.Context, d control.Dirty) error {
	_, err := c.do(ctx, control.Request{Op: control.OpDirty, Dirty: &d})
	return err
}

// Verify checks every page, block and file of the guest now: 256 MiB take 2
// to 5 s without KVM.
func (c *Client) Verify(ctx context.Context) (control.Verdict, error) {
	r, err := c.do(ctx, control.Request{Op: control.OpVerify})
	if err != nil {
		return control.Verdict{}, err
	}
	if r.Verdict == nil {
		return control.Verdict{}, errors.New("the guest gave no verdict")
	}
	return *r.Verdict, nil
}

// do is one exchange. A connection whose exchange was broken off is of no
// further use, because the answer might still come.
func (c *Client) do(ctx context.Context, req control.Request) (control.Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := json.Marshal(req)
	if err != nil {
		return control.Reply{}, err
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return control.Reply{}, fmt.Errorf("asking the guest: %w", errors.Join(err, ctx.Err()))
	}
	answer, err := c.in.ReadBytes('\n')
	if err != nil {
		return control.Reply{}, fmt.Errorf("reading the guest's answer: %w", errors.Join(err, ctx.Err()))
	}
	var reply control.Reply
	if err := json.Unmarshal(answer, &reply); err != nil {
		return control.Reply{}, fmt.Errorf("reading the guest's answer: %w", err)
	}
	if reply.Error != "" {
		return control.Reply{}, fmt.Errorf("the guest refuses: %s", reply.Error)
	}
	if reply.Stats == nil {
		return control.Reply{}, errors.New("the guest's answer is empty")
	}
	return reply, nil
}
