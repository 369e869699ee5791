package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// A Process runs inside a site, and its output is kept.
type Process struct {
	Log  string // path of the file that gets both outputs; appended to
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid after done
}

// Start runs a program inside the site. It ends by Kill, by Stop or with the
// lab, not with ctx. Its output goes to name.log in the site's folder.
func (s *Site) Start(ctx context.Context, name string, argv ...string) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &Process{Log: filepath.Join(s.Dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s at site %s: %w", name, s.Name, err)
	}
	defer log.Close()
	p.cmd = s.Command(context.Background(), argv...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Dir = s.Dir
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // Ctrl-C is for us to pass on
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s at site %s: %w", name, s.Name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// StartGateway writes config to longhauld.yaml in the site's folder and runs
// `BINARY --config PATH ARGS…` inside the site.
func (s *Site) StartGateway(ctx context.Context, binary string, config []byte, args ...string) (*Process, error) {
	path := filepath.Join(s.Dir, "longhauld.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return nil, fmt.Errorf("writing the config of site %s: %w", s.Name, err)
	}
	return s.Start(ctx, "longhauld", append([]string{binary, "--config", path}, args...)...)
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the process ended, with its last words; it is called after Done.
func (p *Process) Err() error {
	if p.err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(p.cmd.Path), p.err, tail(p.Log))
}

// Signal sends a signal, such as SIGKILL or SIGSTOP.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process at once and waits for it.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // gone already is as good
	<-p.done
}

// Stop asks the process to end, and waits for it until ctx ends; then it is
// killed.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.Err()
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not stop: %w", filepath.Base(p.cmd.Path), ctx.Err())
	}
}

// Resident memory in bytes and open file descriptors of a process, to see a
// drift.
func (p *Process) Resident() (bytes int64, files int, err error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	var size, resident int64
	_, err = fmt.Sscan(string(statm), &size, &resident)
	return resident * int64(os.Getpagesize()), len(fds), err
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// GuestOptions fills in what the lab decides of a guest at this site: sockets,
// console, tap, MTU, and the address unless there is one. The tap has the same
// name at both sites, so that one command line serves source and destination
// but for the site's folder.
func (s *Site) GuestOptions(o guest.Options) guest.Options {
	o.QMP = filepath.Join(s.QMPDir(), o.Name+".sock")
	o.Watch = filepath.Join(s.Dir, o.Name+".watch")
	o.Console = filepath.Join(s.Dir, o.Name+".console")
	if !o.IP.IsValid() {
		o.IP = netip.MustParsePrefix(GuestIP + "/24")
	}
	if o.MTU == 0 {
		o.MTU = 1450 // what fits a VXLAN over a WAN of 1500
	}
	return o
}

// StartGuest boots a guest at the site. It is ready after its WaitReady.
func (s *Site) StartGuest(ctx context.Context, o guest.Options) (*guest.VM, error) {
	o = s.GuestOptions(o)
	return s.startQEMU(ctx, o, guest.Command(o))
}

// StartIncoming starts the destination of a guest at the site: QEMU waits for
// migrate-incoming. Extra arguments, such as "-S", come last.
func (s *Site) StartIncoming(ctx context.Context, o guest.Options, extra ...string) (*guest.VM, error) {
	o = s.GuestOptions(o)
	argv := append(guest.Command(o), "-incoming", "defer")
	return s.startQEMU(ctx, o, append(argv, extra...))
}

// Launch is the command line of QEMU for a destination at this site, as a
// template for a gateway's config (hosts: launch): {qmp} and {incoming} are the
// gateway's to fill in. The tap has to be there, see Tap.
func (s *Site) Launch(o guest.Options) ([]string, error) {
	o = s.GuestOptions(o)
	o.QMP = "{qmp}"
	argv := append(guest.Command(o), "-S", "-incoming", "{incoming}")
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, fmt.Errorf("looking for qemu: %w", err)
	}
	argv[0] = path
	return argv, nil
}

func (s *Site) startQEMU(ctx context.Context, o guest.Options, argv []string) (*guest.VM, error) {
	if err := s.Tap(o.TapName(), o.MTU); err != nil {
		return nil, err
	}
	return guest.Start(ctx, o, s.prefix(), argv)
}

// NewDisk makes an empty image that both sites see, for one guest.
func (l *Lab) NewDisk(name string, size int64) (string, error) {
	dir, err := l.folder("disks")
	if err != nil {
		return "", fmt.Errorf("making disk %s: %w", name, err)
	}
	path := filepath.Join(dir, name+".raw")
	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("making disk %s: %w", name, err)
	}
	return path, errors.Join(f.Truncate(size), f.Close())
}

// Control connects to a guest's control port from the client.
func (l *Lab) Control(ctx context.Context, ip string) (*guest.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := l.Client.Dial(ctx, "tcp", ip+":"+strconv.Itoa(control.Port))
	if err != nil {
		return nil, fmt.Errorf("connecting to the guest: %w", err)
	}
	return guest.NewClient(c), nil
}
