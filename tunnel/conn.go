package tunnel

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// A conn is what a carrier needs of a connection: streams, datagrams and reasons
// of closing. The words are QUIC's, and so are the types of what it tells; tcpConn
// speaks them over TCP. quic-go says what each method does.
type conn interface {
	// Context ends with the connection; its cause is why.
	Context() context.Context
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	ConnectionState() quic.ConnectionState
	ConnectionStats() quic.ConnectionStats

	OpenStreamSync(context.Context) (stream, error)
	AcceptStream(context.Context) (stream, error)
	OpenUniStreamSync(context.Context) (sendStream, error)
	AcceptUniStream(context.Context) (io.Reader, error)

	SendDatagram([]byte) error
	ReceiveDatagram(context.Context) ([]byte, error)
	CloseWithError(quic.ApplicationErrorCode, string) error
}

// A stream carries bytes both ways.
type stream interface {
	io.ReadWriteCloser // Close ends only what is written
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
	SetPriority(urgency int8, incremental bool)
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// A sendStream carries bytes one way.
type sendStream interface {
	io.Writer
	SetPriority(urgency int8, incremental bool)
}

// quicConn is a conn.
type quicConn struct{ *quic.Conn }

var _ conn = quicConn{}

// OpenStreamSync implements conn.
func (c quicConn) OpenStreamSync(ctx context.Context) (stream, error) {
	return c.Conn.OpenStreamSync(ctx)
}

// AcceptStream implements conn.
func (c quicConn) AcceptStream(ctx context.Context) (stream, error) {
	return c.Conn.AcceptStream(ctx)
}

// OpenUniStreamSync implements conn.
func (c quicConn) OpenUniStreamSync(ctx context.Context) (sendStream, error) {
	return c.Conn.OpenUniStreamSync(ctx)
}

// AcceptUniStream implements conn.
func (c quicConn) AcceptUniStream(ctx context.Context) (io.Reader, error) {
	return c.Conn.AcceptUniStream(ctx)
}
