package qmp

import (
	"errors"
	"fmt"
)

var (
	// ErrMonitorBusy: no greeting came. A monitor serves one client at a
	// time; QEMU's main loop may hang as well, which looks the same.
	ErrMonitorBusy = errors.New("no greeting: another client holds the monitor, or QEMU hangs")

	// ErrOverflow ends a Subscription whose events were not read.
	ErrOverflow = errors.New("too many events that nobody reads")
)

// An Error is what QEMU answers to a command that it refuses.
type Error struct {
	Command string
	Class   string // "GenericError", "CommandNotFound", "DeviceNotFound", …
	Desc    string // for people
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("qemu refuses %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// IsUnknownCommand tells whether err says that this QEMU has no such command.
func IsUnknownCommand(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == "CommandNotFound"
}
