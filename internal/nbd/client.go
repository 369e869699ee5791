package nbd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	pageSize = 4096    // bytes; spans are cut at its multiples
	maxSpan  = 1 << 20 // bytes of one read
	// depth is the most reads under way. QEMU and its servers serve 16 of a
	// connection at a time.
	depth = 16
	// goodbye is how long Close waits for the request to disconnect to leave.
	// The protocol asks for it, but nothing is lost without.
	goodbye = time.Second
)

// Client is a connection to one export. It belongs to one goroutine.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
	dead error // why nothing can be asked any more

	// What the handshake found.
	structured bool
	hasContext bool   // the server tells which spans are zero
	context    uint32 // its number for that
	bytes      uint64 // of the disk
	flags      uint16
	minBlock   uint32 // bytes; 0 is not told
	maxRead    uint32 // bytes; 0 is not told
	align      int64  // of reads, in bytes
	most       int64  // bytes of one read

	scan scan
}

// Dial connects to a server and opens an export. ctx bounds both.
func Dial(ctx context.Context, t Target) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return nil, err
	}
	return open(ctx, conn, t.Export)
}

// open takes the connection.
func open(ctx context.Context, conn net.Conn, export string) (*Client, error) {
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	err := c.during(ctx, func() error { return c.handshake(export) })
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// Size of the disk in bytes.
func (c *Client) Size() int64 { return int64(c.bytes) }

// Close says goodbye and closes the connection.
func (c *Client) Close() error {
	if c.dead == nil {
		c.conn.SetDeadline(time.Now().Add(goodbye))
		c.send(request(nil, commandDisconnect, 0, 0, 0))
	}
	return c.conn.Close()
}

// during runs f, which uses the connection. When ctx ends, f is woken. An error
// ends the connection: nobody knows which bytes of it were the last.
func (c *Client) during(ctx context.Context, f func() error) error {
	if c.dead != nil {
		return c.dead
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() { // the deadline has passed, or soon will
		err = context.Cause(ctx)
	}
	if err != nil {
		c.dead = fmt.Errorf("connection is of no use after: %w", err)
	}
	return err
}

// full reads len(b) bytes. The end of the connection is never that of the disk.
func (c *Client) full(b []byte) error {
	_, err := io.ReadFull(c.r, b)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (c *Client) send(b []byte) error {
	if _, err := c.conn.Write(b); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}
