package wan

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// setCongestion chooses the controller of a TCP socket (tcp(7)).
func setCongestion(raw syscall.RawConn, name string) error {
	var err error
	failed := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	})
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("choosing congestion controller %s (modprobe tcp_%s?): %w", name, name, err)
	}
	return nil
}
