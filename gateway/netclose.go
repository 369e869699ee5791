package gateway

import (
	"errors"
	"net"
	"syscall"
)

// isNotConnected tells whether a connection could not be shut down because the
// other end had already gone.
func isNotConnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// cutOff closes a connection in such a way that, where the network can say so,
// its other end does not take it for the end of the stream.
func cutOff(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0) // RST rather than FIN
	}
	c.Close()
}

// hangUp ends a connection of a hypervisor here: it hears so at once, and what it had
// written before can still be read, up to the end.
func hangUp(c net.Conn) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		cutOff(c) // over TCP it would go on writing
		return
	}
	_ = u.CloseWrite()
	_ = u.CloseRead() // unix(7): its writes fail with EPIPE, and what waits here stays
}
