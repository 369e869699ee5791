package streams

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// How long a guest may take. TCG on a machine that others use as well is slow.
const (
	bootLimit    = 30 * time.Minute // to boot and to fill all services
	answerLimit  = time.Minute      // to answer its line
	captureLimit = 30 * time.Minute // to be written to a file
)

// machine is a running guest.
type machine struct {
	vm    *guest.VM
	mon   *qmp.Client
	line  net.Conn // to the script of a Debian server, nil of other guests
	lines *bufio.Reader
	dir   string
}

// start runs a QEMU with what all guests have, and args. memory is in KiB.
func start(ctx context.Context, name string, memory int, args []string) (_ *machine, err error) {
	dir, err := os.MkdirTemp("", "lhs-") // short, for the paths of sockets
	if err != nil {
		return nil, err
	}
	m := &machine{dir: dir}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	monitor, console := filepath.Join(dir, "qmp"), filepath.Join(dir, "console")
	argv := append([]string{
		"qemu-system-x86_64", "-name", name, "-machine", "q35", "-cpu", "qemu64", "-smp", "1", "-m", fmt.Sprintf("%dk", memory),
		"-accel", "tcg,thread=multi,tb-size=256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-qmp", "unix:" + monitor + ",server=on,wait=off", "-device", "virtio-rng-pci",
		"-chardev", "file,id=console,path=" + console, "-serial", "chardev:console",
	}, args...)
	m.vm, err = guest.Start(ctx, guest.Options{Name: name, Console: console}, nil, argv)
	if err != nil {
		return nil, err
	}
	if err := m.await(ctx, monitor); err != nil {
		return nil, err
	}
	m.mon, err = qmp.Dial(ctx, monitor)
	return m, err
}

// await waits until QEMU has made a socket.
func (m *machine) await(ctx context.Context, path string) error {
	for range time.Tick(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-m.vm.Done():
			return cmp.Or(m.vm.Err(), fmt.Errorf("qemu ended at once"))
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return nil
}

// startDebian starts a server, which says "ready" when its services are filled and
// it is idle.
func startDebian(ctx context.Context, tree, disk, name string, more ...string) (_ *machine, err error) {
	kernel, initrd, err := boot(tree)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lhs-line-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // both ends are connected by then
	socket := filepath.Join(dir, "line")
	m, err := start(ctx, name, 768<<10+8, append([]string{
		"-kernel", kernel, "-initrd", initrd, "-append", "root=/dev/vda ro console=ttyS0 quiet panic=-1",
		"-drive", "if=none,id=disk0,format=raw,cache=unsafe,file=" + disk, "-device", "virtio-blk-pci,drive=disk0",
		"-chardev", "socket,id=line,server=on,wait=off,path=" + socket, "-serial", "chardev:line",
	}, more...))
	if err != nil {
		return nil, err
	}
	if m.line, err = net.Dial("unix", socket); err != nil {
		m.close()
		return nil, err
	}
	m.lines = bufio.NewReader(m.line)
	return m, nil
}

// order gives the server's script an order and waits for its answer.
func (m *machine) order(ctx context.Context, order, answer string) error {
	if _, err := fmt.Fprintln(m.line, order); err != nil {
		return err
	}
	return m.expect(ctx, answer, answerLimit)
}

func (m *machine) expect(ctx context.Context, answer string, limit time.Duration) error {
	stop := context.AfterFunc(ctx, func() { m.line.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := m.line.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	for {
		got, err := m.lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("waiting for %q of the guest: %w", answer, err)
		}
		if strings.TrimSpace(got) == answer {
			return nil
		}
	}
}

func (m *machine) lastWords() string {
	b, _ := os.ReadFile(m.vm.Console)
	return strings.TrimSpace(string(b[max(0, len(b)-1500):]))
}

// close ends the guest.
func (m *machine) close() {
	if m.line != nil {
		m.line.Close()
	}
	if m.mon != nil {
		m.mon.Close()
	}
	if m.vm != nil {
		m.vm.Kill()
	}
	os.RemoveAll(m.dir)
}
