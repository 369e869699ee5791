package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// handshakeTime bounds our own handshake after QUIC's: two round trips, and
// one loss on a bad line.
const handshakeTime = 8 * time.Second

// A candidate is a connection whose peer is known, on its way into a set.
type candidate struct {
	conn   conn
	ctl    stream
	frames frameReader
	ours   frame.Hello
	theirs frame.Hello
	dialed bool
	// move: in place of a set that is in use, by our own wish.
	move  bool
	via   Carrier
	path  *path
	meter *meter
	moved func(net.Addr) // see carrier
	free  func()         // releases the socket or its meter; after the connection is closed
}

func (c *candidate) theirSet() frame.ID {
	if c.dialed {
		return c.ours.Set
	}
	return c.theirs.Set
}

// moves tells whether the set is to take the place of one that is well: its dialer says that
// it holds what it dials. It says nothing of the set in use, or the peer would go on with that.
func (c *candidate) moves() bool {
	if c.dialed {
		return c.move
	}
	return c.theirs.Role == frame.Priority && c.theirs.Held == c.theirs.Set
}

func (c *candidate) write(frames ...frame.Frame) error {
	var b []byte
	for _, f := range frames {
		b = f.Append(b)
	}
	_, err := c.ctl.Write(b)
	return err
}

// refuse tells the peer and closes.
func (c *candidate) refuse(code uint8, why error) {
	_ = c.write(frame.Refuse{Code: code, Reason: why.Error()})
	_ = c.conn.CloseWithError(closingCode(why), why.Error()) // which may overtake the frame
}

// closingCode says why a connection is not taken.
func closingCode(why error) quic.ApplicationErrorCode {
	if errors.Is(why, errCarrier) {
		return codeCarrier
	}
	return codeRefused
}

// frameReader reads control frames from a stream.
type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func newFrameReader(r io.Reader) frameReader {
	return frameReader{r: bufio.NewReaderSize(r, 4<<10)}
}

// next reads a frame. The length is checked before the buffer grows.
func (r *frameReader) next() (frame.Frame, error) {
	head, err := r.r.Peek(frame.HeadLen)
	if err != nil {
		return nil, err
	}
	_, n, err := frame.ParseHead(head)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, max(n, 4<<10))
	}
	if _, err := io.ReadFull(r.r, r.buf[:n]); err != nil {
		return nil, err
	}
	f, _, err := frame.Parse(r.buf[:n])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return f, nil
}

func readPreface(r io.Reader) (frame.Preface, error) {
	var b [frame.PrefaceLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return frame.Preface{}, err
	}
	p, _, err := frame.ParsePreface(b[:])
	if err != nil {
		return p, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return p, nil
}

func (n *Node) hello(l *Link, role frame.Role, id frame.ID, path string) frame.Hello {
	h := frame.Hello{Role: role, Epoch: n.epoch, Set: id, Site: n.cfg.Site, Gateway: n.cfg.Gateway, Version: n.cfg.Version, Path: path}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set != nil {
		h.Held = l.set.id
	}
	return h
}

// greet is our side of the handshake of a connection that we dialed.
func (l *Link) greet(ctx context.Context, c *candidate) (*carrier, error) {
	defer c.deadline(ctx)()
	ctl, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	c.ctl, c.frames = ctl, newFrameReader(ctl)
	ctl.SetPriority(0, false)
	if err := l.mayMove(c); err != nil {
		return nil, err
	}
	if _, err := ctl.Write(frame.Preface{Use: frame.Control}.Append(nil)); err != nil {
		return nil, err
	}
	if err := c.write(c.ours); err != nil {
		return nil, err
	}
	if err := l.readHello(c); err != nil {
		return nil, err
	}
	if c.ours.Role != frame.Priority {
		if _, err := c.readCommit(); err != nil {
			return nil, err
		}
		return l.join(c, c.ours.Role)
	}
	if l.decides {
		x, serial, err := l.adopt(c, c.ours.Set, 0)
		if err != nil {
			c.refuse(refusal(err), err)
			return nil, err
		}
		return x, c.write(frame.Commit{Set: c.ours.Set, Serial: serial})
	}
	commit, err := c.readCommit()
	if err != nil {
		return nil, err
	}
	x, _, err := l.adopt(c, c.ours.Set, commit.Serial)
	return x, err
}

// answer is our side of the handshake of a connection that the peer dialed.
func (l *Link) answer(ctx context.Context, c *candidate) (*carrier, error) {
	defer c.deadline(ctx)()
	if c.theirs.Role != frame.Priority {
		x, err := l.join(c, c.theirs.Role)
		if err != nil {
			c.refuse(frame.RefuseStale, err)
			return nil, err
		}
		return x, c.write(c.ours, frame.Commit{Set: c.theirs.Set})
	}
	if l.decides {
		x, serial, err := l.adopt(c, c.theirs.Set, 0)
		if err != nil {
			c.refuse(refusal(err), err)
			return nil, err
		}
		return x, c.write(c.ours, frame.Commit{Set: c.theirs.Set, Serial: serial})
	}
	if err := l.mayMove(c); err != nil { // before the peer is committed
		c.refuse(refusal(err), err)
		return nil, err
	}
	if err := c.write(c.ours); err != nil {
		return nil, err
	}
	commit, err := c.readCommit()
	if err != nil {
		return nil, err
	}
	x, _, err := l.adopt(c, c.theirs.Set, commit.Serial)
	return x, err
}

// deadline ends a handshake that takes too long. The func that it returns ends the deadline.
func (c *candidate) deadline(ctx context.Context) func() {
	timer := time.AfterFunc(handshakeTime, func() {
		_ = c.conn.CloseWithError(codeRefused, "timeout: the peer did not finish its handshake")
	})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.CloseWithError(codeShutdown, "shutting down") })
	return func() { timer.Stop(); stop() }
}

// readHello reads and checks the answer to our hello.
func (l *Link) readHello(c *candidate) error {
	f, err := c.frames.next()
	if err != nil {
		return err
	}
	if r, ok := f.(frame.Refuse); ok {
		return refused(r)
	}
	h, ok := f.(frame.Hello)
	if !ok || h.Role != c.ours.Role || h.Set != c.ours.Set {
		return fmt.Errorf("%w: %T in place of a hello", errProtocol, f)
	}
	c.theirs = h
	return l.node.checkNames(c.conn, h, l.site)
}

func (c *candidate) readCommit() (frame.Commit, error) {
	f, err := c.frames.next()
	if err != nil {
		return frame.Commit{}, err
	}
	switch f := f.(type) {
	case frame.Refuse:
		return frame.Commit{}, refused(f)
	case frame.Commit:
		if f.Set == c.theirSet() && (f.Serial != 0 || c.theirs.Role != frame.Priority) {
			return f, nil
		}
	}
	return frame.Commit{}, fmt.Errorf("%w: %T in place of a commit", errProtocol, f)
}

// refusal is the code for why a set is not taken.
func refusal(err error) uint8 {
	if errors.Is(err, errCarrier) {
		return frame.RefuseCarrier
	}
	return frame.RefuseBusy
}

func refused(r frame.Refuse) error {
	if r.Code == frame.RefuseCarrier {
		return fmt.Errorf("refused by the peer: %w", errCarrier)
	}
	if r.Code == frame.RefuseBusy {
		return fmt.Errorf("refused by the peer: %s: %w", r.Reason, errBusy)
	}
	return errors.New("refused by the peer: " + r.Reason)
}

// checkNames holds what a hello says against the certificate.
func (n *Node) checkNames(conn conn, h frame.Hello, want string) error {
	site, gateway, err := n.cfg.PeerSite(conn.ConnectionState().TLS)
	switch {
	case err != nil:
		return fmt.Errorf("certificate: %w", err)
	case want != "" && site != want:
		return fmt.Errorf("certificate: it is of site %q, not of %q", site, want)
	case h.Site != site || h.Gateway != gateway:
		return fmt.Errorf("certificate: it is of gateway %q of site %q, who says to be %q of %q", gateway, site, h.Gateway, h.Site)
	case site == n.cfg.Site:
		return fmt.Errorf("the peer is of our own site %q", site)
	}
	return nil
}
