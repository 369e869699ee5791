//go:build !linux

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
)

// expressSocket: only Linux has one.
type expressSocket struct {
	dropped *atomic.Uint64
}

func newExpressSocket(pc net.PacketConn) (*expressSocket, error) {
	return nil, errors.Join(fmt.Errorf("%w on this system", ErrNoExpress), pc.Close())
}

func shareExpress(context.Context, net.PacketConn) (*expressSocket, error) {
	return nil, fmt.Errorf("%w on this system", ErrNoExpress)
}

func (s *expressSocket) write([]byte, int, netip.AddrPort) error { return ErrNoExpress }

func (s *expressSocket) read(func([]byte, int, netip.AddrPort)) {}

func (s *expressSocket) close() {}
