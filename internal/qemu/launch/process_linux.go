package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is one process of this machine, for good: the number may be given
// to another one, the time of its start may not.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, /proc/PID/stat field 22
}

// Find returns the process that has this number now.
func Find(pid int) (Process, error) {
	start, state, err := stat(pid)
	if err != nil {
		return Process{}, err
	}
	if state == 'Z' {
		return Process{}, fmt.Errorf("process %d has ended: %w", pid, os.ErrProcessDone)
	}
	return Process{PID: pid, Start: start}, nil
}

// stat reads /proc/PID/stat (proc(5)). The name, in brackets, may hold anything.
func stat(pid int) (start uint64, state byte, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", pid, err)
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("process %d: strange stat %.80q", pid, b)
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", pid, err)
	}
	return start, fields[0][0], nil
}

// Alive tells whether the process runs. One that cannot be seen, because this process has
// no descriptor left for instance, counts as one that does.
func (p Process) Alive() bool {
	lives, err := p.lives()
	return lives || err != nil
}

// lives tells whether the process runs, or why that is not known. If it is a child of ours
// that has ended, this lets it rest.
func (p Process) lives() (bool, error) {
	if p.PID <= 0 {
		return false, nil
	}
	start, state, err := stat(p.PID)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH): // ESRCH: it ended while we read
		return false, nil
	case err != nil:
		return false, err
	case start != p.Start:
		return false, nil
	case state != 'Z' && state != 'X':
		return true, nil
	}
	var ws syscall.WaitStatus
	syscall.Wait4(p.PID, &ws, syscall.WNOHANG, nil) // ECHILD: it is not ours
	return false, nil
}

// Age is how long the process has been running.
func (p Process) Age() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	const tick = time.Second / 100 // USER_HZ is 100 on all that Linux runs on
	return time.Duration(now.Nano()) - time.Duration(p.Start)*tick
}

// exitPoll is how often Wait looks: a QEMU that quits needs 10 to 50 ms.
const exitPoll = 10 * time.Millisecond

// Wait waits until the process has ended.
func (p Process) Wait(ctx context.Context) error {
	tick := time.NewTicker(exitPoll)
	defer tick.Stop()
	for p.Alive() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for process %d to end: %w", p.PID, context.Cause(ctx))
		}
	}
	return nil
}

// Kill ends the process, and never another one that has got its number.
func (p Process) Kill() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if lives, err := p.lives(); !lives { // what cannot be seen may be another one
		return err
	}
	// fd names what had the number when we opened it, and that was p.
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", p.PID, err)
	}
	return nil
}

// Args returns the process's command line, with the program's path first.
func (p Process) Args() ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
	if err != nil {
		return nil, fmt.Errorf("command line of process %d: %w", p.PID, err)
	}
	var args []string
	for w := range bytes.SplitSeq(bytes.TrimSuffix(b, []byte{0}), []byte{0}) {
		args = append(args, string(w))
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
	if err != nil {
		return nil, fmt.Errorf("program of process %d: %w", p.PID, err)
	}
	// After an upgrade of the package the running program has no file.
	args[0] = string(bytes.TrimSuffix([]byte(exe), []byte(" (deleted)")))
	return args, nil
}

// Tap returns the interface behind a descriptor of a tap, or "".
func (p Process) Tap(fd string) string {
	if _, err := strconv.ParseUint(fd, 10, 31); err != nil {
		return ""
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", p.PID, fd))
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) { // drivers/net/tun.c, tun_chr_show_fdinfo
		if name, ok := bytes.CutPrefix(line, []byte("iff:\t")); ok {
			return string(bytes.TrimSpace(name))
		}
	}
	return ""
}

// Start runs a command line in dir with the given environment. The process
// gets a session of its own, no input, and log for its output; it lives on
// when this process ends. Ask Alive now and then, so that it can rest when it
// has ended.
func Start(args, env []string, dir string, log *os.File) (Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return Process{}, fmt.Errorf("starting %s: %w", args[0], err)
	}
	defer null.Close()
	proc, err := os.StartProcess(args[0], args, &os.ProcAttr{
		Dir: dir, Env: env, Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return Process{}, fmt.Errorf("starting %s: %w", args[0], err)
	}
	defer proc.Release()
	p, err := Find(proc.Pid)
	if err != nil { // it has ended already, or cannot be seen: let it rest
		proc.Kill()
		var ws syscall.WaitStatus
		syscall.Wait4(proc.Pid, &ws, 0, nil)
		if !errors.Is(err, os.ErrProcessDone) {
			return Process{}, fmt.Errorf("starting %s: %w", args[0], err)
		}
		return Process{}, fmt.Errorf("starting %s: it ended at once, status %d", args[0], ws.ExitStatus())
	}
	return p, nil
}
