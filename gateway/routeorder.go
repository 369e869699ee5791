package gateway

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"time"
)

// routeHolding is how long what a host_route command has started may hold on to its output when
// the command has ended, or was killed: longer than it takes to announce a host with two gratuitous
// ARPs, and short beside routeTime of l2ext.
const routeHolding = 3 * time.Second

// maxOrderOutput is how much of what a command prints is told when it fails, in bytes: a line or ten.
const maxOrderOutput = 1024

// runOrder runs a command of the operator until ctx ends; then it is killed with all that it has started, as
// it is when it fails: it will be tried again, and each try would leave some. What one that succeeds leaves
// running goes on: it may be meant to. If that holds the output of the command, it is heard for the time of
// holding, and has nobody who reads it from then on.
func runOrder(ctx context.Context, argv []string, holding time.Duration) (output string, err error) {
	var out head
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = kill, holding
	err = cmd.Run()
	switch {
	case errors.Is(err, exec.ErrWaitDelay): // only of one that has succeeded
		err = nil
	case err != nil && cmd.Process != nil:
		_ = kill() // ESRCH: nothing is left of it; so soon nobody else has its number
	}
	return string(out), err
}

// head is the first maxOrderOutput bytes that were written to it.
type head []byte

func (h *head) Write(b []byte) (int, error) {
	*h = append(*h, b[:min(len(b), maxOrderOutput-len(*h))]...)
	return len(b), nil
}
