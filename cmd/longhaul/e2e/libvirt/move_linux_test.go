package libvirt_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
)

// What virsh is told of the way: the README's words, with names for what the
// direction decides.
var (
	byTCP = []string{
		"qemu+unix:///system?socket=/run/longhaul/forward/PEER-libvirt.sock",
		"--migrateuri", "tcp://127.0.0.1:RAM", "--listen-address", "127.0.0.1", "--disks-uri", "tcp://127.0.0.1:DISK",
	}
	byUnix = []string{
		"qemu+unix:///system?socket=/run/longhaul/forward/PEER-libvirt.sock",
		"--migrateuri", "unix:///run/longhaul/forward/PEER-ram.sock", "--disks-uri", "unix:///run/longhaul/forward/PEER-disk.sock",
	}
	byTCPOnly = []string{
		"qemu+tcp://127.0.0.1:CONTROL/system",
		"--migrateuri", "tcp://127.0.0.1:RAM", "--listen-address", "127.0.0.1", "--disks-uri", "tcp://127.0.0.1:DISK",
	}

	overTCP     = [3]string{controlUnix, ramTCP, diskTCP}
	overUnix    = [3]string{controlUnix, ramUnix, diskUnix}
	overTCPOnly = [3]string{controlTCP, ramTCP, diskTCP}
)

// A move is one call of virsh.
type move struct {
	name      string
	options   []string
	way       []string
	forwards  [3]string // that must have carried it: control, memory, disk
	reduction float64   // of memory, at least; 1 where the gateways do not look into it
	busy      bool      // the guest dirties so much that memory is left to fetch after the switch
}

// moves are made one after another, back and forth, each row by one VM. A row
// has at most four: what moves five times in three minutes without a job is
// taken for two hosts with one MAC, and is held where it is (l2ext, after RFC
// 7432, section 15.1).
var moves = [][]move{
	{
		{name: "tcp", way: byTCP, forwards: overTCP, reduction: 1.5},
		{name: "unix", way: byUnix, forwards: overUnix, reduction: 4}, // the way home: the sites know these pages
		{name: "p2p", options: []string{"--p2p"}, way: byTCP, forwards: overTCP, reduction: 4},
		{name: "control by TCP", way: byTCPOnly, forwards: overTCPOnly, reduction: 4},
	},
	{
		{name: "postcopy", options: postcopy, way: byTCP, forwards: overTCP, reduction: 1.5, busy: true},
		{name: "parallel", options: parallel, way: byTCP, forwards: overTCP, reduction: 1},
		{name: "postcopy by unix sockets", options: postcopy, way: byUnix, forwards: overUnix, reduction: 1.5, busy: true},
		{name: "parallel by unix sockets", options: parallel, way: byUnix, forwards: overUnix, reduction: 1},
	},
}

var (
	// At 20 MiB/s the guest is faster than precopy, so that there is a rest.
	postcopy = []string{"--postcopy", "--postcopy-after-precopy", "--bandwidth", "20"}
	parallel = []string{"--parallel", "--parallel-connections", "3"}
)

// TestMoves moves VMs by virsh in every way that the README names, and then
// disturbs it.
func TestMoves(t *testing.T) {
	w := newWorld(t)
	for i, row := range moves {
		d := w.newDomain(t, i)
		for k, m := range row {
			from, to := w.hosts[k%2], w.hosts[(k+1)%2]
			if !t.Run(m.name, func(t *testing.T) { w.move(t, d, m, from, to) }) {
				return // nobody knows where the VM is
			}
		}
	}
	w.noWarnings(t)
	w.troubles(t, w.newDomain(t, len(moves)))
	w.onlyTunnel(t)
}

// moveTime bounds one move and the guest's check of itself, on a busy machine.
const moveTime = 3 * time.Minute

func (w *world) move(t *testing.T, d *domain, m move, from, to *host) {
	ctx, cancel := context.WithTimeout(t.Context(), moveTime)
	defer cancel()
	to.makeDisk(t, d) // so that every block has to cross
	d.work(t, ctx, m.busy)
	before, wan := counts(t, ctx, w.pair, from), w.lab.Wire(nil)
	events := to.events(t, ctx)
	began := time.Now()
	if _, err := from.virsh(ctx, m.command(d, to)...); err != nil {
		t.Fatal(err)
	}
	took, wire := time.Since(began), w.lab.Wire(nil).Bytes-wan.Bytes
	w.runsAt(t, ctx, d, to, from)
	d.verify(t, ctx)
	m.judge(t, before, counts(t, ctx, w.pair, from))
	if seen := events(); m.busy && !strings.Contains(seen, "Resumed Post-copy") {
		t.Errorf("the VM ran only when all of it had come, it was no postcopy: %s", seen)
	}
	t.Logf("%s to %s: virsh took %.1f s, %.1f MiB crossed the WAN", from.Name, to.Name, took.Seconds(), mib(wire))
}

// events listens to what happens to VMs at the site, and its result tells it.
func (h *host) events(t *testing.T, ctx context.Context) func() string {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	c := h.command(ctx, "virsh", "-q", "-c", "qemu:///system", "event", "--event", "lifecycle", "--loop")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // it then writes what it has
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return func() string {
		stop()
		c.Wait() // its end is our doing
		return out.String()
	}
}

// command is what virsh is asked for.
func (m move) command(d *domain, to *host) []string {
	args := slices.Concat([]string{"migrate", "--live", "--persistent", "--undefinesource", "--copy-storage-all"}, m.options, []string{d.name}, m.way)
	return wayTo(to.Name).fill(to.Name, args)
}

// fill puts the way's addresses in.
func (w way) fill(peer string, args []string) []string {
	words := strings.NewReplacer("PEER", peer, "CONTROL", w.control, "RAM", w.ram, "DISK", w.disk)
	filled := make([]string, len(args))
	for i, a := range args {
		filled[i] = words.Replace(a)
	}
	return filled
}

// runsAt checks that the VM runs at one site, and that the other does not have
// it any more.
func (w *world) runsAt(t *testing.T, ctx context.Context, d *domain, here, gone *host) {
	t.Helper()
	if got, err := here.virsh(ctx, "domstate", d.name); err != nil || got != "running" {
		t.Fatalf("at site %s the VM is %q, %v", here.Name, got, err)
	}
	if got, err := gone.virsh(ctx, "list", "--all", "--name"); err != nil || strings.Contains(got, d.name) {
		t.Fatalf("site %s still has %q, %v", gone.Name, got, err)
	}
}

// verify has the guest check itself.
func (d *domain) verify(t *testing.T, ctx context.Context) {
	t.Helper()
	v, err := d.ask.Verify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !v.OK() || v.BlocksVerified == 0 {
		t.Errorf("the guest found itself damaged: %+v", v)
	}
}

// judge looks at what the forwards have carried.
func (m move) judge(t *testing.T, before, after forwardsOf) {
	t.Helper()
	for i, least := range []int64{1, memory << 20 / 4, diskSize / 4} { // bytes; QEMU sends no zero pages
		name := m.forwards[i]
		b, a := before[name], after[name]
		if a.Problem != "" {
			t.Errorf("forward %s after a move: %s", name, a.Problem)
		}
		logical, wire := a.Logical-b.Logical, a.Wire-b.Wire
		t.Logf("%-12s %d connections, %6.1f MiB in, %6.1f MiB on the WAN, %.1f : 1", name, a.Total-b.Total, mib(logical), mib(wire), float64(logical)/float64(wire))
		if logical < least || wire == 0 {
			t.Errorf("forward %s carried %d bytes as %d: the move did not pass here", name, logical, wire)
		}
		if i == 1 && float64(logical) < m.reduction*float64(wire) {
			t.Errorf("forward %s: %d bytes of memory became %d, want %.1f : 1", name, logical, wire, m.reduction)
		}
	}
}

// noWarnings checks that no gateway had anything to say of these forwards.
func (w *world) noWarnings(t *testing.T) {
	t.Helper()
	for _, h := range w.hosts {
		b, err := os.ReadFile(w.pair.Process(h.Site).Log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "forward") && (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) {
				t.Errorf("gateway of site %s: %s", h.Name, line)
			}
		}
	}
}

// onlyTunnel checks that no TCP and no UDP crossed the WAN but the gateways'.
func (w *world) onlyTunnel(t *testing.T) {
	t.Helper()
	// By TCP the gateways look whether the other one is there while QUIC is silent.
	udp, tcp := lab.PortFlow(wanem.UDP, pair.LinkPort), lab.PortFlow(wanem.TCP, pair.LinkPort)
	other := w.lab.Wire(func(f wanem.Flow) bool {
		return (f.Proto == wanem.TCP || f.Proto == wanem.UDP) && !udp(f) && !tcp(f)
	})
	if other.Packets > 0 {
		t.Errorf("%d packets crossed the WAN beside the tunnel", other.Packets)
	}
	if all := w.lab.Wire(udp); all.Bytes < diskSize {
		t.Errorf("only %d bytes crossed the tunnel: the count is wrong", all.Bytes)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
