package wan

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// Addresses of a bed: of its lines, and of the wireguard tunnel over the first.
const (
	addrA, addrB     = "10.81.0.1", "10.81.0.2"
	insideA, insideB = "10.82.0.1", "10.82.0.2"
	otherA, otherB   = "10.83.0.1", "10.83.0.2" // of the second line
	port             = "7447"
)

// A bed is two namespaces, the lines between them and the processes of a cell.
type bed struct {
	ns    [2]*nstest.NS
	taps  []*wanem.Tap // two of each line
	lines []*wanem.Child
	dir   string     // of the tunnel's identities
	procs [2][]*proc // by namespace
}

func newBed(r Row, o Options) (b *bed, err error) {
	b = new(bed)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = identities(); err != nil {
		return b, err
	}
	for i := range b.ns {
		if b.ns[i], err = nstest.Create(""); err != nil {
			return b, err
		}
	}
	if r.Kind == Cable {
		return b, b.cable("wan0", [2]string{addrA, addrB})
	}
	if err = b.span("wan0", [2]string{addrA, addrB}, r.Line, o); err == nil && r.Kind == Paths {
		err = b.span("wan1", [2]string{otherA, otherB}, r.Second, o)
	}
	return b, err
}

// cable joins the namespaces by a veth.
func (b *bed) cable(name string, addrs [2]string) error {
	err := nstest.Veth(b.ns[0], name, b.ns[1], name)
	for i, addr := range addrs {
		err = errors.Join(err, b.ns[i].Addr(name, addr+"/24"))
	}
	return err
}

// span puts a line between the namespaces.
func (b *bed) span(name string, addrs [2]string, line wanem.Profile, o Options) error {
	for i, addr := range addrs {
		if err := b.plug(i, name, addr); err != nil {
			return err
		}
	}
	n := len(b.taps)
	child, err := wanem.StartChild(o.Emulator, b.taps[n-2], b.taps[n-1], wanem.Config{AB: line, BA: line, Seed: o.Seed + uint64(len(b.lines))})
	if err == nil {
		b.lines = append(b.lines, child)
	}
	return err
}

// plug makes a namespace's end of a line. TCP gets buffers for the longest
// of the lines (wan-transport.md, section 8).
func (b *bed) plug(i int, name, addr string) error {
	ns := b.ns[i]
	err := ns.Do(func() error {
		tap, err := wanem.OpenTap(name)
		if err == nil {
			b.taps = append(b.taps, tap)
		}
		return err
	})
	if err != nil {
		return err
	}
	const buffers = "4096 1048576 134217728"
	return errors.Join(
		ns.Sysctl("ipv6.conf."+name+".disable_ipv6", "1"),
		ns.Sysctl("ipv4.tcp_rmem", buffers), ns.Sysctl("ipv4.tcp_wmem", buffers),
		ns.Up(name), ns.Addr(name, addr+"/24"))
}

// close ends all processes and takes all away.
func (b *bed) close() (err error) {
	for _, ps := range b.procs {
		for _, p := range ps {
			p.kill()
		}
	}
	for _, l := range b.lines {
		err = errors.Join(err, l.Close())
	}
	for _, t := range b.taps {
		err = errors.Join(err, t.Close())
	}
	for _, ns := range b.ns {
		if ns != nil {
			err = errors.Join(err, ns.Close())
		}
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// A proc is a process of a cell that speaks JSON lines.
type proc struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start runs argv in a namespace.
func (b *bed) start(ctx context.Context, i int, argv []string) (*proc, error) {
	p := &proc{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewScanner(out)
	p.out.Buffer(nil, maxEndLine)
	if err := b.ns[i].Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	b.procs[i] = append(b.procs[i], p)
	return p, nil
}

func (p *proc) kill() {
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

var errEnded = errors.New("the process has ended")

// ask sends a line and reads the answer.
func (p *proc) ask(question any) (r endReply, err error) {
	b, err := json.Marshal(question)
	if err != nil {
		return r, err
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		return r, errors.Join(errEnded, err)
	}
	if !p.out.Scan() {
		return r, errors.Join(errEnded, p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		err = errors.New(r.Error)
	}
	return r, err
}

// startEnds starts receiver and sender, connected.
func (b *bed) startEnds(ctx context.Context, p Peer, r Row, o Options) (from, to *proc, err error) {
	addr := addrB
	if p.Wireguard {
		if err := b.startWireguard(ctx, o.Wireguard); err != nil {
			return nil, nil, fmt.Errorf("wireguard: %w", err)
		}
		addr = insideB
	}
	c := endConfig{Peer: p, Addr: addr + ":" + port, Rate: p.rate(r), Pings: r.Kind == Urgent}
	if r.Kind == Paths {
		c.Paths = []endPath{
			{Name: "first", Source: addrA, Addr: addrB + ":" + port, Rate: p.rated(r.Line.Rate)},
			{Name: "second", Source: otherA, Addr: otherB + ":" + port, Rate: p.rated(r.Second.Rate)},
		}
	}
	c.Dir = filepath.Join(b.dir, siteB)
	if to, err = b.startEnd(ctx, 1, c, o); err != nil {
		return nil, nil, err
	}
	c.Sends, c.Dir = true, filepath.Join(b.dir, siteA)
	from, err = b.startEnd(ctx, 0, c, o)
	return from, to, err
}

func (b *bed) startEnd(ctx context.Context, i int, c endConfig, o Options) (*proc, error) {
	p, err := b.start(ctx, i, o.End)
	if err == nil {
		_, err = p.ask(c)
	}
	return p, err
}

// processor is the seconds of processor that the processes of an end have used.
func (b *bed) processor(i int) (seconds float64, err error) {
	for _, p := range b.procs[i] {
		s, err := processorOf(p.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		seconds += s
	}
	return seconds, nil
}

// ticks of /proc/PID/stat in a second: USER_HZ, which Linux has fixed at 100.
const ticks = 100

// processorOf reads fields 14 and 15 of a process's stat, utime and stime (proc(5)).
func processorOf(pid int) (float64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	var sum float64
	fields := statFields(string(b))
	for _, i := range []int{14, 15} {
		if i >= len(fields) {
			return 0, errors.New("reading /proc/PID/stat: too few fields")
		}
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += float64(n) / ticks
	}
	return sum, nil
}
