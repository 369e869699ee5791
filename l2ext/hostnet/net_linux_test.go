package hostnet

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func newNet(t testing.TB, ns *nstest.NS) *Net {
	t.Helper()
	n, err := New(Config{NetNS: ns.FD()})
	check(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

// TestSuite is what the fake in l2exttest passes, too.
func TestSuite(t *testing.T) {
	l2exttest.Suite(t, func(t *testing.T) l2exttest.Fixture {
		ns := nstest.New(t)
		n := newNet(t, ns)
		taps := make(map[string]*os.File)
		return l2exttest.Fixture{
			Host:      n,
			AddBridge: func(name string) { check(t, ns.Bridge(name)) },
			Plug: func(bridge, port string) {
				f, err := ns.Tap(port)
				check(t, err, ns.Plug(port, bridge))
				t.Cleanup(func() { f.Close() })
				taps[port] = f
			},
			Send: func(port string, frame []byte) error { _, err := taps[port].Write(frame); return err },
			Receive: func(port string) []byte {
				b := make([]byte, 1<<16)
				taps[port].SetReadDeadline(time.Now().Add(l2exttest.Patience))
				k, err := taps[port].Read(b)
				if err != nil {
					return nil
				}
				return b[:k]
			},
			State: func() string { return state(t, ns) },
		}
	})
}

// state reads from the kernel what l2exttest.Host tells of itself.
func state(t *testing.T, ns *nstest.NS) string {
	t.Helper()
	n, err := New(Config{NetNS: ns.FD()})
	check(t, err)
	defer n.Close()
	links, err := n.nl.LinkList()
	check(t, err)
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var lines []string
	for _, l := range links {
		a := l.Attrs()
		switch {
		case strings.HasPrefix(a.Alias, bridgeMark):
			lines = append(lines, "bridge "+a.Name+" made")
		case l.Type() == "bridge":
			lines = append(lines, "bridge "+a.Name+" adopted")
		case a.Alias == mutedMark:
			lines = append(lines, "muted "+a.Name)
		case strings.HasPrefix(a.Alias, segmentMark):
			lines = append(lines, fmt.Sprintf("port %s on %s mtu %d", a.Name, names[a.MasterIndex], a.MTU))
			if p, err := n.nl.LinkGetProtinfo(l); err != nil || p.Learning || !p.Guard || a.RawFlags&unix.IFF_UP == 0 {
				t.Errorf("port %s: %+v, %v", a.Name, p, err)
			}
			have, err := n.entries(a.Index, 0)
			check(t, err)
			for mac, e := range have {
				if !e.bridge {
					t.Errorf("%v is not static and sticky in the bridge", mac)
				}
				lines = append(lines, fmt.Sprintf("fdb %s %v site %d", a.Name, mac, e.site))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func prod(bridge string) l2ext.Wish {
	return l2ext.Wish{
		Segment: l2ext.Segment{Name: "prod", VNI: 100, Bridge: bridge, MTU: 1500},
		Entries: []l2ext.Entry{{MAC: l2ext.MAC{0x52, 0x54, 0, 0, 0, 1}, Site: 16}},
	}
}

// TestForeignStays makes a segment on an operator's bridge, in whose place
// nothing may change but for one port, and takes everything away again.
func TestForeignStays(t *testing.T) {
	ns := nstest.New(t)
	check(t, ns.Bridge("br0"), nstest.Veth(ns, "lan0", ns, "far0"), ns.Plug("lan0", "br0"), ns.SetMTU("lan0", 9000), ns.SetMTU("far0", 9000))
	check(t, ns.Addr("br0", "192.168.7.1/24"))
	before, err := ns.Dump()
	check(t, err)
	n := newNet(t, ns)
	_, err = n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	during, err := ns.Dump()
	check(t, err)
	for line := range strings.Lines(before) {
		// promisc is the number of those who listen
		if !strings.Contains(during, line) {
			t.Errorf("changed while attached: %s", line)
		}
	}
	check(t, n.Close())
	waitGone(t, ns, "lhvx100")
	after, err := ns.Dump()
	check(t, err)
	if after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// waitGone waits until a device is gone: the kernel removes the TUN, and what
// is bound to it, after the last descriptor was closed, and not before the
// call returns.
func waitGone(t *testing.T, ns *nstest.NS, dev string) {
	t.Helper()
	for deadline := time.Now().Add(l2exttest.Patience); ; time.Sleep(time.Millisecond) {
		if _, err := ns.MAC(dev); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", dev)
		}
	}
}

// TestCrash leaves a gateway's devices behind in the way a killed process does,
// takes them up again, and cleans them away.
func TestCrash(t *testing.T) {
	ns := nstest.New(t)
	empty, err := ns.Dump()
	check(t, err)
	n := newNet(t, ns)
	a, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err, a[0].Err)
	mac, err := ns.MAC("br0")
	check(t, err)

	n.tun.Close() // all that the kernel sees of a death
	waitGone(t, ns, "lhvx100")
	if got := state(t, ns); got != "bridge br0 made" {
		t.Errorf("after the death there is\n%s", got)
	}

	next := newNet(t, ns)
	a, err = next.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	if again, err := ns.MAC("br0"); err != nil || again != mac || a[0].Adopted || a[0].Err != nil {
		t.Errorf("taken up: %+v, bridge %s was %s, %v", a[0], again, mac, err)
	}
	with := state(t, ns)
	if err := CleanupIn(t.Context(), Config{NetNS: ns.FD()}); err == nil || state(t, ns) != with {
		t.Errorf("cleaning up under a gateway that runs: %v\n%s", err, state(t, ns))
	}
	next.tun.Close()
	waitGone(t, ns, "lhvx100")
	check(t, CleanupIn(t.Context(), Config{NetNS: ns.FD()}))
	check(t, CleanupIn(t.Context(), Config{NetNS: ns.FD()})) // nothing to do
	if got, err := ns.Dump(); err != nil || got != empty {
		t.Errorf("left behind:\n%s, %v", got, err)
	}
}

// TestCleanupKeepsBridgeInUse does not take the network from a VM.
func TestCleanupKeepsBridgeInUse(t *testing.T) {
	ns := nstest.New(t)
	n := newNet(t, ns)
	_, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	tap, err := ns.Tap("vm0")
	check(t, err, ns.Plug("vm0", "br0"))
	defer tap.Close()
	n.tun.Close()
	waitGone(t, ns, "lhvx100")
	check(t, CleanupIn(t.Context(), Config{NetNS: ns.FD()}))
	if got := state(t, ns); got != "bridge br0 made" {
		t.Errorf("there is\n%s", got)
	}
	check(t, ns.Plug("vm0", ""), CleanupIn(t.Context(), Config{NetNS: ns.FD()}))
	if got := state(t, ns); got != "" {
		t.Errorf("there is\n%s", got)
	}
}

// TestRefusals checks that one segment that cannot be does not harm others, and
// that nothing of somebody else's is taken.
func TestRefusals(t *testing.T) {
	ns := nstest.New(t)
	check(t, nstest.Veth(ns, "eth7", ns, "eth8"), ns.Bridge("lhvx300"))
	n := newNet(t, ns)
	bad := l2ext.Wish{Segment: l2ext.Segment{Name: "bad", VNI: 200, Bridge: "eth7", MTU: 1500}}
	taken := l2ext.Wish{Segment: l2ext.Segment{Name: "taken", VNI: 300, Bridge: "br3", MTU: 1500}}
	a, err := n.Apply(t.Context(), []l2ext.Wish{bad, prod("br0"), taken})
	check(t, err)
	if a[0].Err == nil || a[1].Err != nil || a[2].Err == nil {
		t.Errorf("attached: %+v", a)
	}
	second := newNet(t, ns)
	if _, err := second.Apply(t.Context(), []l2ext.Wish{prod("br0")}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second gateway: %v", err)
	}
	if got := state(t, ns); !strings.Contains(got, "port lhvx100 on br0") {
		t.Errorf("the second gateway has harmed the first:\n%s", got)
	}
}

// TestWithoutRights needs no privileges: a gateway without segments runs
// without any.
func TestWithoutRights(t *testing.T) {
	n, err := New(Config{})
	check(t, err)
	if _, err := n.Apply(t.Context(), nil); err != nil {
		t.Error(err)
	}
	check(t, n.Close())
}

// TestRepair undoes by hand what Apply has made: the next Apply mends it.
func TestRepair(t *testing.T) {
	ns := nstest.New(t)
	n := newNet(t, ns)
	wishes := []l2ext.Wish{prod("br0")}
	_, err := n.Apply(t.Context(), wishes)
	check(t, err)
	want := state(t, ns)
	port, err := n.nl.LinkByName("lhvx100")
	check(t, err)
	for _, tt := range []struct {
		name string
		harm func() error
	}{
		{"unplugged", func() error { return ns.Plug("lhvx100", "") }},
		{"down", func() error { return ns.Down("lhvx100") }},
		{"deleted", func() error { return ns.Del("lhvx100") }},
		{"bridge deleted", func() error { return ns.Del("br0") }},
		{"MTU", func() error { return ns.SetMTU("lhvx100", 1300) }},
		{"learning", func() error { return n.nl.LinkSetLearning(port, true) }},
		{"entries", func() error {
			return n.setAll(attachment{port: port.Attrs().Index}, []l2ext.Entry{{MAC: wishes[0].Entries[0].MAC}, {MAC: l2ext.MAC{2, 0, 0, 0, 0, 9}, Site: 20}})
		}},
		{"not static", func() error {
			return n.nl.NeighSet(&netlink.Neigh{LinkIndex: port.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
				State: netlink.NUD_REACHABLE, HardwareAddr: wishes[0].Entries[0].MAC[:]})
		}},
	} {
		port, err = n.nl.LinkByName("lhvx100")
		check(t, err)
		if err := tt.harm(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		a, err := n.Apply(t.Context(), wishes)
		if err != nil || a[0].Err != nil || state(t, ns) != want {
			t.Errorf("%s: %+v, %v, now\n%s", tt.name, a, err, state(t, ns))
		}
	}
}

// TestKilled kills a gateway's process without a chance to clean up: the kernel
// takes the carrier and the overlay ports away with it.
func TestKilled(t *testing.T) {
	if os.Getenv("HOSTNET_VICTIM") != "" {
		victim(t)
		return
	}
	ns := nstest.New(t)
	check(t, ns.Bridge("br0"))
	before, err := ns.Dump()
	check(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
	cmd.Env = append(os.Environ(), "HOSTNET_VICTIM=1")
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, ns.Do(cmd.Start)) // it lives in the namespace
	ready := bufio.NewScanner(out)
	for ready.Scan() && ready.Text() != "ready" {
	}
	if _, err := ns.MAC("lhvx100"); err != nil {
		t.Errorf("the victim has made nothing: %v", err)
	}
	check(t, cmd.Process.Kill())
	cmd.Wait()
	waitGone(t, ns, "lhvx100")
	waitGone(t, ns, DefaultTun)
	if after, err := ns.Dump(); err != nil || after != before {
		t.Errorf("before\n%s\nafter\n%s, %v", before, after, err)
	}
}

// victim attaches a segment and waits for its death.
func victim(t *testing.T) {
	n, err := New(Config{})
	check(t, err)
	a, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err, a[0].Err)
	fmt.Println("ready")
	<-time.After(l2exttest.Patience)
}

// TestPointMany programs more entries than go to the kernel at once, of which
// one cannot be: the others are.
func TestPointMany(t *testing.T) {
	ns := nstest.New(t)
	n := newNet(t, ns)
	_, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	port, err := n.nl.LinkByName("lhvx100")
	check(t, err)
	var all []l2ext.Entry
	for i := range 2*maxTogether + 7 {
		all = append(all, l2ext.Entry{MAC: l2ext.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Site: 17})
	}
	all[100].MAC = l2ext.MAC{1} // a group: the kernel refuses it
	if err := n.Point(100, all); err == nil || !strings.Contains(err.Error(), "01:00:00:00:00:00") {
		t.Errorf("programming an entry that cannot be: %v", err)
	}
	have, err := n.entries(port.Attrs().Index, 0)
	check(t, err)
	if len(have) != len(all) { // one less, and one of the wish
		t.Errorf("%d entries of %d", len(have), len(all))
	}
	for i := range all {
		all[i].Site = 0
	}
	all[100].MAC = l2ext.MAC{2, 9}
	check(t, n.Point(100, all), n.Point(100, all))
	if have, _ = n.entries(port.Attrs().Index, 0); len(have) != 1 {
		t.Errorf("%d entries are left", len(have))
	}
}

// BenchmarkPoint: one flip of 1000 MACs.
func BenchmarkPoint(b *testing.B) {
	ns := nstest.New(b)
	n, err := New(Config{NetNS: ns.FD()})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Apply(b.Context(), []l2ext.Wish{prod("br0")}); err != nil {
		b.Fatal(err)
	}
	all := make([]l2ext.Entry, 1000)
	for i := range all {
		all[i].MAC = l2ext.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
	}
	for i := 0; b.Loop(); i++ {
		for k := range all {
			all[k].Site = vxlan.Endpoint(i%2) * 17
		}
		if err := n.Point(100, all); err != nil {
			b.Fatal(err)
		}
	}
}
