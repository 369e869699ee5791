package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// A VM is a QEMU process that was started here.
type VM struct {
	Options
	cmd    *exec.Cmd
	stderr bytes.Buffer // read only after done
	done   chan struct{}
	err    error // why it ended; valid after done
	kill   sync.Once
}

// Start runs a command line of QEMU, such as [Command] makes it, behind an
// optional prefix such as {"ip", "netns", "exec", NAME}. The process does not
// end with ctx but with Kill.
func Start(ctx context.Context, o Options, prefix, argv []string) (*VM, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	argv = append(append([]string{}, prefix...), argv...)
	vm := &VM{Options: o, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	vm.cmd.Stderr = &vm.stderr
	if err := vm.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the guest: %w", err)
	}
	go func() {
		defer close(vm.done)
		vm.err = vm.cmd.Wait()
	}()
	return vm, nil
}

// PID of the process.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Done is closed when the process has ended.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Err tells why the process ended; it is called after Done.
func (vm *VM) Err() error {
	if vm.err == nil {
		return nil
	}
	return fmt.Errorf("qemu: %w: %s", vm.err, bytes.TrimSpace(vm.stderr.Bytes()))
}

// Kill ends the process, if it has not ended, and waits for it.
func (vm *VM) Kill() {
	vm.kill.Do(func() { vm.cmd.Process.Kill() })
	<-vm.done
}

// readyLine is what the workload writes on the console when it serves.
const readyLine = "longhaul guest: ready"

// WaitReady waits until the workload has filled memory and disk and serves.
func (vm *VM) WaitReady(ctx context.Context) error { return vm.waitConsole(ctx, readyLine) }

// waitConsole waits for a line on the console.
func (vm *VM) waitConsole(ctx context.Context, line string) error {
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		b, err := os.ReadFile(vm.Console)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("reading the console: %w", err)
		}
		if bytes.Contains(b, []byte(line)) {
			return nil
		}
		select {
		case <-vm.done:
			return fmt.Errorf("the guest ended before %q: %w; console: %s", line, errors.Join(vm.Err(), errEnded), lastWords(b))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q of the guest: %w; console: %s", line, ctx.Err(), lastWords(b))
		case <-look.C:
		}
	}
}

var errEnded = errors.New("process ended")

func lastWords(b []byte) []byte {
	return bytes.TrimSpace(b[max(0, len(b)-1000):])
}
