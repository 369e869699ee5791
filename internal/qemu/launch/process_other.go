//go:build !linux

package launch

import (
	"context"
	"errors"
	"os"
	"time"
)

// A Process is one process of this machine. Only Linux runs hypervisors.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Find returns the process that has this number now.
func Find(pid int) (Process, error) { return Process{}, errors.ErrUnsupported }

// Alive tells whether the process runs.
func (p Process) Alive() bool { return false }

// Age is how long the process has been running.
func (p Process) Age() time.Duration { return 0 }

// Wait waits until the process has ended.
func (p Process) Wait(ctx context.Context) error { return errors.ErrUnsupported }

// Kill ends the process.
func (p Process) Kill() error { return errors.ErrUnsupported }

// Args returns the process's command line, with the program's path first.
func (p Process) Args() ([]string, error) { return nil, errors.ErrUnsupported }

// Tap returns the interface behind a descriptor of a tap, or "".
func (p Process) Tap(fd string) string { return "" }

// Start runs a command line.
func Start(args, env []string, dir string, log *os.File) (Process, error) {
	return Process{}, errors.ErrUnsupported
}
