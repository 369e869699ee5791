package gateway

import (
	"context"
	"fmt"
	"io"
	"os"
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

// order is a command of the operator.
type order struct {
	argv    []string
	holding time.Duration

	output head            // of a command that has failed
	left   <-chan struct{} // closed when nothing that a command has left holds its output, or after holding; nil: nothing did
}

// run runs the command until ctx ends; then it is killed with all that it has started, as it is when it fails:
// it will be tried again, and each try would leave some. What one that succeeds leaves running goes on: it may
// be meant to. run does not wait for that. If it holds the output of the command, it is heard for the time of
// holding, and has nobody who reads it from then on.
func (o *order) run(ctx context.Context) error {
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	cmd := exec.CommandContext(ctx, o.argv[0], o.argv[1:]...)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	err = cmd.Start()
	in.Close() // the command has its own
	if err != nil {
		out.Close()
		return err
	}
	left := make(chan struct{})
	go func() { // who called waits for it, or whom it tells of left
		defer close(left)
		defer out.Close()
		_, _ = io.Copy(&o.output, out) // until nobody holds it, or the deadline
	}()
	if err = cmd.Wait(); err != nil {
		_ = kill() // ESRCH: nothing is left of it; so soon nobody else has its number
	}
	_ = out.SetReadDeadline(time.Now().Add(o.holding)) // os.ErrClosed: it has been read to its end
	if err != nil {
		<-left
		return err
	}
	o.left = left
	return nil
}

// head is the first maxOrderOutput bytes that were written to it.
type head []byte

func (h *head) Write(b []byte) (int, error) {
	*h = append(*h, b[:min(len(b), maxOrderOutput-len(*h))]...)
	return len(b), nil
}
