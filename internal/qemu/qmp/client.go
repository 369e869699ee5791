package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// GreetingWait is how long Dial waits for the greeting. QEMU sends it as soon
// as its main loop turns; a loop that is busy for more is a problem of its own.
const GreetingWait = 3 * time.Second

// errClosed ends what goes on when the client is closed from this side.
var errClosed = fmt.Errorf("qmp connection: %w", net.ErrClosed)

// A Client is the one client of a monitor. Its methods are safe for
// concurrent use.
type Client struct {
	conn     net.Conn
	greeting greeting
	oob      bool // the monitor takes commands out of band
	done     chan struct{}
	writing  chan struct{} // capacity 1: held while a request is written

	mu      sync.Mutex // guards what follows; never held during I/O
	last    uint64     // id of the last request
	pending map[uint64]*call
	subs    map[*Subscription]struct{}
	err     error // why the connection has ended; nil while it has not
}

// A call waits for its answer.
type call struct {
	command string
	answer  chan message // capacity 1: the one answer
}

// Dial connects to a QMP socket and gets it ready for commands.
func Dial(ctx context.Context, path string) (*Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, GreetingWait, ErrMonitorBusy)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.EAGAIN) { // the backlog is full of others who wait
		err = ErrMonitorBusy
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to monitor %s: %w", path, err)
	}
	c, err := NewClient(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("monitor %s: %w", path, err)
	}
	return c, nil
}

// NewClient greets over a connection, which it takes. It fails with the cause
// of ctx when that ends before the monitor is ready.
func NewClient(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn: conn, done: make(chan struct{}), writing: make(chan struct{}, 1),
		pending: make(map[uint64]*call), subs: make(map[*Subscription]struct{}),
	}
	greeted := make(chan greeting, 1) // the one greeting
	go c.read(greeted)                // Close waits for it
	select {
	case c.greeting = <-greeted:
	case <-c.done:
		return nil, errors.Join(c.Err(), conn.Close())
	case <-ctx.Done():
		c.Close()
		return nil, context.Cause(ctx)
	}
	var enable []string
	if c.oob = slices.Contains(c.greeting.Capabilities, "oob"); c.oob {
		enable = append(enable, "oob")
	}
	if err := c.Execute(ctx, "qmp_capabilities", map[string]any{"enable": enable}, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Version is what the greeting says of QEMU.
func (c *Client) Version() Version { return c.greeting.Version }

// Done is closed when the connection has ended; Err then says why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection has ended, or nil.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and everything that waits for it.
func (c *Client) Close() error {
	c.fail(errClosed)
	err := c.conn.Close()
	<-c.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// fail notes the first reason for the end. The reader does the rest.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.conn.Close()
}

// Execute runs a command. arguments and result may be nil; result is filled
// from the command's return value. A refusal is an *Error.
func (c *Client) Execute(ctx context.Context, command string, arguments, result any) error {
	return c.execute(ctx, request{Execute: command, Arguments: arguments}, command, result)
}

// ExecuteOOB runs a command out of band if the monitor can, so that it passes
// by those that wait for QEMU's main loop.
func (c *Client) ExecuteOOB(ctx context.Context, command string, arguments, result any) error {
	if !c.oob {
		return c.Execute(ctx, command, arguments, result)
	}
	return c.execute(ctx, request{ExecOOB: command, Arguments: arguments}, command, result)
}

func (c *Client) execute(ctx context.Context, req request, command string, result any) error {
	answer, err := c.send(ctx, req, command)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case m := <-answer:
		return m.result(command, result)
	case <-c.done:
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", command, context.Cause(ctx))
	}
	select { // it may have come with the end
	case m := <-answer:
		return m.result(command, result)
	default:
		return fmt.Errorf("waiting for %s: %w", command, c.Err())
	}
}

// result turns an answer into what the caller wants of it.
func (m message) result(command string, result any) error {
	if m.Error != nil {
		return &Error{Command: command, Class: m.Error.Class, Desc: m.Error.Desc}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("answer to %s: %w", command, err)
	}
	return nil
}

// send writes a request and returns where its answer will come.
func (c *Client) send(ctx context.Context, req request, command string) (<-chan message, error) {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	w := &call{command: command, answer: make(chan message, 1)}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.last++
	req.ID = c.last
	c.pending[req.ID] = w
	c.mu.Unlock()
	b, err := json.Marshal(req)
	if err != nil {
		c.mu.Lock()
		delete(c.pending, req.ID)
		c.mu.Unlock()
		return nil, fmt.Errorf("encoding the arguments: %w", err)
	}
	return w.answer, c.write(ctx, append(b, '\n'))
}

// write ends the connection when it cannot write all of b: the rest of a
// request would follow half of another.
func (c *Client) write(ctx context.Context, b []byte) error {
	late := make(chan struct{}) // closed when ctx has ended first, and Write need not wait any more
	stop := context.AfterFunc(ctx, func() {
		c.conn.SetWriteDeadline(time.Unix(1, 0))
		close(late)
	})
	_, err := c.conn.Write(b)
	if !stop() {
		<-late // or the deadline would be that of the next command
		if err != nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		c.fail(fmt.Errorf("writing a command: %w", err))
		return err
	}
	c.conn.SetWriteDeadline(time.Time{})
	return nil
}

// read takes what comes until the connection ends.
func (c *Client) read(greeted chan<- greeting) {
	defer close(c.done)
	err := c.readMessages(greeted)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) { // the latter if it left something unread
		err = fmt.Errorf("qemu has hung up: %w", io.ErrUnexpectedEOF)
	}
	c.fail(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subs {
		s.end(c.err)
	}
	clear(c.subs)
	clear(c.pending)
}

// readSize is how much is read at a time: more than nearly all messages.
const readSize = 16 << 10

func (c *Client) readMessages(greeted chan<- greeting) error {
	var s splitter
	var buf []byte
	hello := true
	for {
		skip, n, err := s.next(buf)
		if err != nil {
			return err
		}
		if n == 0 {
			buf = slices.Grow(buf[skip:], readSize)
			got, err := c.conn.Read(buf[len(buf) : len(buf)+readSize])
			buf = buf[:len(buf)+got]
			if err != nil && got == 0 {
				return err
			}
			continue
		}
		m, err := parse(buf[skip : skip+n])
		if err != nil {
			return err
		}
		buf = buf[skip+n:]
		if hello != (m.QMP != nil) {
			return fmt.Errorf("%w: greeting expected %t", errGarbage, hello)
		}
		if hello {
			hello = false
			greeted <- *m.QMP
			continue
		}
		if err := c.deliver(m, time.Now()); err != nil {
			return err
		}
	}
}

// deliver gives a message to who waits for it.
func (c *Client) deliver(m message, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Event != "" {
		ev := m.event(now)
		for s := range c.subs {
			s.push(ev)
		}
		return nil
	}
	if m.ID == nil {
		if m.Error != nil { // QEMU could not read what we wrote
			return &Error{Command: "a request", Class: m.Error.Class, Desc: m.Error.Desc}
		}
		return fmt.Errorf("%w: an answer without id", errGarbage)
	}
	w := c.pending[*m.ID]
	if w == nil {
		return fmt.Errorf("%w: an answer to request %d, which waits for none", errGarbage, *m.ID)
	}
	delete(c.pending, *m.ID) // a caller that has gone leaves its entry until here
	w.answer <- m
	return nil
}
