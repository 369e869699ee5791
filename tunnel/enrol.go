package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// DialEnrol connects to a gateway as a stranger, for enrolment, by TCP if QUIC does
// not get through: conf names the protocol and says what to trust. The caller
// closes the connection. Nil sockets are real ones.
func DialEnrol(ctx context.Context, s Sockets, addr string, conf *tls.Config) (net.Conn, error) {
	if s == nil {
		s = udpSockets{}
	}
	c, free, err := connectEnrol(ctx, s, addr, conf)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	str, err := c.OpenStreamSync(ctx)
	if err != nil {
		_ = c.CloseWithError(0, "")
		free()
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	return streamConn{stream: str, conn: c, free: free}, nil
}

func connectEnrol(ctx context.Context, s Sockets, addr string, conf *tls.Config) (conn, func(), error) {
	m := &meter{bucket: shaper.New(0), count: new(traffic)}
	q, free, err := connect(ctx, s, ends{to: addr}, m, conf, stockPacket)
	if err == nil {
		return quicConn{q}, free, nil
	}
	if streams, ok := s.(Streams); ok && unanswered(err) {
		if t, free, e := connectTCP(ctx, streams, ends{to: addr}, m, conf); e == nil {
			return t, free, nil
		}
	}
	return nil, nil, err
}
