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
