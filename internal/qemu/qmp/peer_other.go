//go:build !linux

package qmp

import "errors"

// PID returns the process that listens on the socket.
func (c *Client) PID() (int, error) { return 0, errors.ErrUnsupported }
