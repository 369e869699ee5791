package gateway

import (
	"errors"
	"syscall"
)

// isNotConnected tells whether a connection could not be shut down because the
// other end had already gone.
func isNotConnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
