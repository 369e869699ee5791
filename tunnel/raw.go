package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

const (
	// prefaceTime bounds how long a raw connection may take to say what it is.
	prefaceTime = 5 * time.Second
	// maxConnsWaiting bounds raw connections that nobody has accepted yet.
	maxConnsWaiting = 256
)

// A Conn is a raw connection to a peer: a stream of the priority connection, or
// of that for datagrams. It dies with that connection, and nothing of it is sent
// again then.
type Conn struct {
	streamConn
	site  string
	proto byte
}

// Site is the peer's site.
func (c *Conn) Site() string { return c.site }

// Proto is what the dialer said that the connection is for.
func (c *Conn) Proto() byte { return c.proto }

// Dial opens a raw connection to the peer, for what proto says. ErrDown: the
// link is not up.
func (l *Link) Dial(ctx context.Context, proto byte) (*Conn, error) {
	l.mu.Lock()
	var c *carrier
	if l.set != nil && l.set.ready {
		c = l.set.priority
	}
	l.mu.Unlock()
	return c.dialRaw(ctx, proto, func(stream) {})
}

// DialBeside is Dial for a stream of the connection for datagrams: it has their
// class, behind what is urgent and ahead of bulk, and no loss on any other stream
// holds it up. Gateways that do not know it never answer. ErrDown: that
// connection is not there, perhaps not yet.
func (l *Link) DialBeside(ctx context.Context, proto byte) (*Conn, error) {
	l.mu.Lock()
	c := l.datagramConn()
	l.mu.Unlock()
	if c != nil && c.role != frame.Datagrams {
		c = nil
	}
	// Several of them take turns; quic-go would else send all of the first first.
	return c.dialRaw(ctx, proto, func(s stream) { s.SetPriority(besideUrgency, true) })
}

// besideUrgency is RFC 9218's default; nothing else of that connection but its
// control stream is more urgent.
const besideUrgency = 3

// dialRaw opens a raw connection on c, which is nil if there is none.
func (c *carrier) dialRaw(ctx context.Context, proto byte, tune func(stream)) (*Conn, error) {
	if c == nil {
		return nil, ErrDown
	}
	l := c.link
	str, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("dialing %s: %w", l.site, err)
	}
	tune(str)
	if _, err := str.Write(frame.Preface{Use: frame.Raw, Proto: proto}.Append(nil)); err != nil {
		return nil, fmt.Errorf("dialing %s: %w", l.site, err)
	}
	return &Conn{streamConn: streamConn{stream: str, conn: c.conn, shared: true}, site: l.site, proto: proto}, nil
}

// acceptRaw accepts the peer's raw connections.
func (c *carrier) acceptRaw(ctx context.Context, wg *sync.WaitGroup) {
	for {
		str, err := c.conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		wg.Go(func() {
			if err := c.welcomeRaw(str); err != nil {
				str.CancelRead(0)
				str.CancelWrite(0)
			}
		})
	}
}

func (c *carrier) welcomeRaw(str stream) error {
	if err := str.SetReadDeadline(time.Now().Add(prefaceTime)); err != nil {
		return err
	}
	p, err := readPreface(str)
	if err != nil {
		return err
	}
	if p.Use != frame.Raw {
		return fmt.Errorf("%w: bidirectional stream of use %d", errProtocol, p.Use)
	}
	if err := str.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	n := c.link.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.conns.items) >= maxConnsWaiting {
		return ErrTooMany
	}
	n.conns.push(&Conn{streamConn: streamConn{stream: str, conn: c.conn, shared: true}, site: c.link.site, proto: p.Proto})
	return nil
}

// streamConn is a stream as a net.Conn.
type streamConn struct {
	stream
	conn   conn
	shared bool   // other streams use the connection
	free   func() // releases the socket; may be nil
}

var _ net.Conn = streamConn{}

// LocalAddr implements net.Conn.
func (c streamConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c streamConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// ConnectionState says whom TLS has found at the other end.
func (c streamConn) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState().TLS }

// CloseWrite says that no more comes; reading goes on.
func (c streamConn) CloseWrite() error { return c.stream.Close() }

// Close closes both directions. What was written still arrives.
func (c streamConn) Close() error {
	c.stream.CancelRead(0)
	err := c.stream.Close()
	if !c.shared {
		_ = c.conn.CloseWithError(0, "")
		if c.free != nil {
			c.free()
		}
	}
	return err
}
