package libvirt_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/gateway"
)

// What virsh is told of the way: the README's words, with names for what the
// direction decides.
var (
	controlByTCP  = []string{"qemu+tcp://127.0.0.1:CONTROL/system"}
	controlByUnix = []string{"qemu+unix:///system?socket=/run/longhaul/forward/PEER-libvirt.sock"}
	dataByTCP     = []string{"--migrateuri", "tcp://127.0.0.1:RAM", "--listen-address", "127.0.0.1", "--disks-uri", "tcp://127.0.0.1:DISK"}
	dataByUnix    = []string{"--migrateuri", "unix:///run/longhaul/forward/PEER-ram.sock", "--disks-uri", "unix:///run/longhaul/forward/PEER-disk.sock"}
)

// moves are made one after another, back and forth, by the same VM.
var moves = []struct {
	name          string
	options       []string
	control, data []string
	forwards      [3]string // that must have carried it: control, memory, disk
	reduction     float64   // of memory, at least; 1 where the gateways do not look into it
}{
	{"tcp", nil, controlByTCP, dataByTCP, overTCP, 1.5},
	{"unix", nil, controlByUnix, dataByUnix, overUnix, 4}, // the way home: the sites know these pages
	{"p2p", []string{"--p2p"}, controlByUnix, dataByTCP, [3]string{controlUnix, ramTCP, diskTCP}, 4},
	{"postcopy", []string{"--postcopy", "--postcopy-after-precopy"}, controlByTCP, dataByTCP, overTCP, 4},
	{"postcopy-unix", []string{"--postcopy", "--postcopy-after-precopy"}, controlByUnix, dataByUnix, overUnix, 4},
	{"parallel", []string{"--parallel", "--parallel-connections", "3"}, controlByTCP, dataByTCP, overTCP, 1},
	{"parallel-unix", []string{"--parallel", "--parallel-connections", "3"}, controlByUnix, dataByUnix, overUnix, 1},
}

var (
	overTCP  = [3]string{controlTCP, ramTCP, diskTCP}
	overUnix = [3]string{controlUnix, ramUnix, diskUnix}
)

// TestMoves moves one VM by virsh in every way that the README names.
func TestMoves(t *testing.T) {
	w := newWorld(t)
	for i, m := range moves {
		from, to := w.hosts[i%2], w.hosts[(i+1)%2]
		ok := t.Run(m.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			to.makeDisk(t) // so that every block has to cross
			before, wan := counts(t, ctx, w.pair, from), w.lab.Wire(nil)
			args := append([]string{"migrate", "--live", "--copy-storage-all"}, m.options...)
			args = append(append(append(args, domain), m.control...), m.data...)
			began := time.Now()
			if _, err := from.virsh(ctx, wayTo(to.Name).fill(to.Name, args)...); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			w.runsAt(t, ctx, to, from)
			w.verify(t, ctx)
			after := counts(t, ctx, w.pair, from)
			w.judge(t, m.forwards, before, after, m.reduction)
			t.Logf("%s to %s: virsh took %.1f s, %.1f MiB crossed the WAN", from.Name, to.Name, took.Seconds(), mib(w.lab.Wire(nil).Bytes-wan.Bytes))
		})
		if !ok {
			return // nobody knows where the VM is
		}
	}
	w.onlyTunnel(t)
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
func (w *world) runsAt(t *testing.T, ctx context.Context, here, gone *host) {
	t.Helper()
	if got, err := here.virsh(ctx, "domstate", domain); err != nil || got != "running" {
		t.Fatalf("at site %s the VM is %q, %v", here.Name, got, err)
	}
	if got, err := gone.virsh(ctx, "list", "--all", "--name"); err != nil || got != "" {
		t.Fatalf("site %s still has %q, %v", gone.Name, got, err)
	}
}

// verify has the guest check itself, over a connection that was made before the
// first move.
func (w *world) verify(t *testing.T, ctx context.Context) {
	t.Helper()
	v, err := w.ask.Verify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !v.OK() || v.BlocksVerified == 0 {
		t.Errorf("the guest found itself damaged: %+v", v)
	}
}

// judge looks at what the forwards have carried.
func (w *world) judge(t *testing.T, names [3]string, before, after map[string]gateway.Forward, reduction float64) {
	t.Helper()
	for i, least := range []int64{1, memory << 20 / 4, diskSize / 4} { // bytes; QEMU sends no zero pages
		name := names[i]
		b, a := before[name], after[name]
		logical, wire := a.Logical-b.Logical, a.Wire-b.Wire
		t.Logf("%-12s %d connections, %6.1f MiB in, %6.1f MiB on the WAN, %.1f : 1", name, a.Total-b.Total, mib(logical), mib(wire), float64(logical)/float64(wire))
		if logical < least || wire == 0 {
			t.Errorf("forward %s carried %d bytes as %d: the move did not pass here", name, logical, wire)
		}
		if i == 1 && float64(logical) < reduction*float64(wire) {
			t.Errorf("forward %s: %d bytes of memory became %d, want %.1f : 1", name, logical, wire, reduction)
		}
	}
}

// onlyTunnel checks that nothing crossed the WAN but the gateways' UDP port.
func (w *world) onlyTunnel(t *testing.T) {
	t.Helper()
	other := w.lab.Wire(func(f wanem.Flow) bool {
		return f.EtherType == etherIPv4 && !f.Between(wanem.UDP, pair.LinkPort)
	})
	if other.Packets > 0 {
		t.Errorf("%d packets crossed the WAN beside the tunnel", other.Packets)
	}
	if all := w.lab.Wire(lab.PortFlow(wanem.UDP, pair.LinkPort)); all.Bytes < diskSize {
		t.Errorf("only %d bytes crossed the tunnel: the count is wrong", all.Bytes)
	}
}

const etherIPv4 = 0x0800 // ARP may pass

func mib(n int64) float64 { return float64(n) / (1 << 20) }
