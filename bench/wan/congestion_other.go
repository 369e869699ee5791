//go:build !linux

package wan

import (
	"errors"
	"syscall"
)

// setCongestion: only Linux lets a socket choose.
func setCongestion(syscall.RawConn, string) error { return errors.ErrUnsupported }
