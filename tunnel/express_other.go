//go:build !linux

package tunnel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
)

// expressSocket: only Linux has one.
type expressSocket struct {
	u       *net.UDPConn
	dropped *atomic.Uint64
}

func newExpressSocket(net.PacketConn) (*expressSocket, error) {
	return nil, fmt.Errorf("%w on this system", ErrNoExpress)
}

func shareExpress(context.Context, net.PacketConn) (*expressSocket, error) {
	return nil, fmt.Errorf("%w on this system", ErrNoExpress)
}

func (s *expressSocket) write([]byte, int, netip.AddrPort) error { return ErrNoExpress }

func (s *expressSocket) read(func([]byte, int, netip.AddrPort)) {}
