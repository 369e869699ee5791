package qmp

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// PID returns the process that listens on the socket, as the kernel knows it.
// It is 0 if that process is in a pid namespace that this one cannot see.
func (c *Client) PID() (int, error) {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("peer of a %T: %w", c.conn, errors.ErrUnsupported)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("asking for the peer: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("asking for the peer: %w", err)
	}
	return int(cred.Pid), nil
}
