package hostnet

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

const local = "10.78.0.1"

// prodDirect is prod in mode direct, with one other site.
func prodDirect(bridge string) l2ext.Wish {
	w := prod(bridge)
	w.Mode = l2ext.Direct
	w.Direct = &l2ext.Underlay{
		Local: netip.MustParseAddr(local), Self: l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 1},
		Sites:      []l2ext.UnderlaySite{{Site: 16, Addr: netip.MustParseAddr("10.78.0.2"), MAC: l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 2}}},
		Neighbours: []l2ext.Neighbour{{IP: netip.MustParseAddr("10.77.0.9"), MAC: l2ext.MAC{0x52, 0x54, 0, 0, 0, 1}}},
	}
	return w
}

func machine(t testing.TB) *nstest.NS {
	ns := nstest.New(t)
	check(t, nstest.Veth(ns, "wan0", ns, "wan1"), ns.Addr("wan0", local+"/24"))
	return ns
}

// newLAN makes the bridge br0 with one port on a machine whose kernel says nothing
// itself there, and a Host.
func newLAN(t testing.TB, ns *nstest.NS) (n *Net, port *os.File) {
	t.Helper()
	check(t, ns.Sysctl("ipv6.conf.default.disable_ipv6", "1"), ns.Bridge("br0"))
	port, err := ns.Tap("lan0")
	check(t, err, ns.Plug("lan0", "br0"))
	t.Cleanup(func() { port.Close() })
	return newNet(t, ns), port
}

// apply makes segments.
func apply(t testing.TB, n *Net, ws ...l2ext.Wish) {
	t.Helper()
	as, err := n.Apply(t.Context(), ws)
	check(t, err)
	for _, a := range as {
		check(t, a.Err)
	}
}

// operatorsBridge has a port, so that its MAC need not be pinned, by which the
// kernel forgets all neighbours.
func operatorsBridge(ns *nstest.NS) error {
	return errors.Join(nstest.Veth(ns, "lan0", ns, "far0"), ns.Bridge("br0", "lan0"), ns.Addr("br0", "10.77.0.1/24"))
}

// tables lists those of nftables in a namespace.
func tables(t *testing.T, ns *nstest.NS) (names []string) {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	check(t, err)
	all, err := c.ListTables()
	check(t, err)
	for _, table := range all {
		names = append(names, table.Name)
	}
	return names
}

// TestDirectCrash kills a gateway: its kernel goes on carrying the segment, the
// next gateway takes the device up as it is, and Cleanup removes all there is,
// but nothing of others.
func TestDirectCrash(t *testing.T) {
	ns := machine(t)
	check(t, operatorsBridge(ns), ns.Neighbour("br0", "10.77.0.8", "02:00:00:00:00:08"))
	before, err := ns.Dump()
	check(t, err)
	n := newNet(t, ns)
	a, err := n.Apply(t.Context(), []l2ext.Wish{prodDirect("br0")})
	check(t, err, a[0].Err)
	mac, err := ns.MAC("lhdx100")
	check(t, err)
	n.tun.Close() // all that the kernel sees of a death
	waitGone(t, ns, "lhvx100")
	fdb, err := ns.FDB()
	check(t, err)
	if all := strings.Join(fdb, "\n"); !strings.Contains(all, "lhdx100 52:54:00:00:00:01 dst 10.78.0.2") {
		t.Errorf("after the death the kernel has\n%s", all)
	}

	next := newNet(t, ns)
	a, err = next.Apply(t.Context(), []l2ext.Wish{prodDirect("br0")})
	check(t, err, a[0].Err)
	if again, err := ns.MAC("lhdx100"); err != nil || again != mac {
		t.Errorf("the device was made anew: %s, %s, %v", mac, again, err)
	}
	if again, _ := ns.FDB(); strings.Count(strings.Join(again, "\n"), "lhdx100 52:54") != 2 {
		t.Errorf("taken up: %v", again)
	}
	next.tun.Close()
	waitGone(t, ns, "lhvx100")
	check(t, CleanupIn(t.Context(), Config{NetNS: ns.FD()}), CleanupIn(t.Context(), Config{NetNS: ns.FD()}))
	if after, err := ns.Dump(); err != nil || after != before {
		t.Errorf("before\n%s\nafter\n%s, %v", before, after, err)
	}
	if left := tables(t, ns); len(left) != 0 {
		t.Errorf("tables are left: %v", left)
	}
	br, err := next.nl.LinkByName("br0")
	check(t, err)
	have, err := next.neighbours(br.Attrs().Index)
	check(t, err)
	if h, ok := have[netip.MustParseAddr("10.77.0.8")]; !ok || !h.fixed {
		t.Errorf("the operator's neighbour is %+v", h)
	}
	for _, h := range have {
		if h.ours {
			t.Errorf("a neighbour is left: %+v", h)
		}
	}
}

// TestDirectForeign leaves alone what an operator has of the same names and
// addresses.
func TestDirectForeign(t *testing.T) {
	ns := machine(t)
	check(t, ns.VXLAN("lhdx100", 7, local, "10.78.0.2"), operatorsBridge(ns))
	check(t, ns.Neighbour("br0", "10.77.0.9", "02:00:00:00:00:08"))
	before, err := ns.Dump()
	check(t, err)
	n := newNet(t, ns)
	a, err := n.Apply(t.Context(), []l2ext.Wish{prodDirect("br0")})
	check(t, err)
	if a[0].Err == nil || !strings.Contains(a[0].Err.Error(), "not ours") {
		t.Errorf("attached: %+v", a[0])
	}
	check(t, ns.Del("lhdx100"))
	a, err = n.Apply(t.Context(), []l2ext.Wish{prodDirect("br0")})
	check(t, err, a[0].Err)
	br, err := n.nl.LinkByName("br0")
	check(t, err)
	have, err := n.neighbours(br.Attrs().Index)
	check(t, err)
	if h := have[netip.MustParseAddr("10.77.0.9")]; h.ours || h.MAC != (l2ext.MAC{2, 0, 0, 0, 0, 8}) {
		t.Errorf("the operator's neighbour is %+v", h)
	}
	check(t, n.Close(), ns.VXLAN("lhdx100", 7, local, "10.78.0.2"))
	waitGone(t, ns, "lhvx100")
	after, err := ns.Dump()
	check(t, err)
	if strings.Contains(after, "longhaul:") || strings.Count(after, "\n") != strings.Count(before, "\n") {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// TestDirectRepair undoes by hand what Apply has made: the next Apply mends it.
func TestDirectRepair(t *testing.T) {
	ns := machine(t)
	n := newNet(t, ns)
	wishes := []l2ext.Wish{prodDirect("br0")}
	a, err := n.Apply(t.Context(), wishes)
	check(t, err, a[0].Err)
	want, err := ns.Dump()
	check(t, err)
	for _, tt := range []struct {
		name string
		harm func() error
	}{
		{"unplugged", func() error { return ns.Plug("lhdx100", "") }},
		{"down", func() error { return ns.Down("lhdx100") }},
		{"MTU", func() error { return ns.SetMTU("lhdx100", 1300) }},
		{"entries", func() error {
			at, _ := n.attachment(100)
			return n.setAll(at, []l2ext.Entry{{MAC: wishes[0].Entries[0].MAC}, {MAC: l2ext.MAC{2, 0, 0, 0, 0, 9}, Site: 16}})
		}},
		{"here", func() error {
			at, _ := n.attachment(100)
			return n.setAll(at, []l2ext.Entry{{MAC: wishes[0].Entries[0].MAC, Site: 1}})
		}},
		{"rules", func() error {
			c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
			if err != nil {
				return err
			}
			c.FlushRuleset()
			return c.Flush()
		}},
	} {
		if err := tt.harm(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		a, err := n.Apply(t.Context(), wishes)
		now, _ := ns.Dump()
		if err != nil || a[0].Err != nil || now != want || len(tables(t, ns)) != 4 {
			t.Errorf("%s: %+v, %v, tables %v, was\n%s\nnow\n%s", tt.name, a, err, tables(t, ns), want, now)
		}
	}
	if err := ns.Del("lhdx100"); err != nil {
		t.Error(err)
	}
	if a, err := n.Apply(t.Context(), wishes); err != nil || a[0].Err != nil {
		t.Errorf("deleted: %+v, %v", a, err)
	}
}

// FuzzNeighbour reads what a kernel might say.
func FuzzNeighbour(f *testing.F) {
	f.Add(neighbourEntry(7, 28, l2ext.Neighbour{IP: netip.MustParseAddr("10.0.0.1"), MAC: l2ext.MAC{2}}).Serialize()[16:], 7)
	f.Fuzz(func(t *testing.T, b []byte, device int) {
		if s, ok := neighbourIn(b, device); ok && !s.IP.IsValid() {
			t.Errorf("%x is %+v", b, s)
		}
		if ago, ok := heardIn(b, device); ago < 0 || !ok && ago != 0 {
			t.Errorf("%x was heard %v ago", b, ago)
		}
	})
}

// TestDirectPolicy has the kernel take each policy that mode direct knows, and
// drop by it what a LAN port sends.
func TestDirectPolicy(t *testing.T) {
	n, tap := newLAN(t, machine(t))
	w := prodDirect("br0")
	w.Policy = l2ext.Policy{
		RouterAdverts: l2ext.Local, DHCP: l2ext.Local, Multicast: l2ext.MulticastLinkLocal,
		Limits: l2ext.Limits{Resolve: 100, Broadcast: 100, Multicast: 100, Unknown: 100},
	}
	apply(t, n, w)
	src := "\x02\x00\x00\x00\x00\x77"
	ip4 := func(proto, port byte) string { // with its checksum: a kernel with br_netfilter drops others
		h := []byte{0x45, 0, 0, 44, 0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 224, 0, 0, 18}
		sum := 0
		for i := 0; i < len(h); i += 2 {
			sum += int(h[i])<<8 | int(h[i+1])
		}
		sum = ^(sum&0xffff + sum>>16)
		h[10], h[11] = byte(sum>>8), byte(sum)
		return "\x08\x00" + string(append(h, 0, 68, 0, port)) + strings.Repeat("\x00", 20)
	}
	behindOptions := func(proto byte, body string) string { // two headers of options before it
		body = string([]byte{60, 0, 1, 4, 0, 0, 0, 0, proto, 0, 1, 4, 0, 0, 0, 0}) + body
		return "\x86\xdd\x60\x00\x00\x00\x00" + string([]byte{byte(len(body)), 0, 255}) + strings.Repeat("\x00", 32) + body
	}
	for _, tt := range []struct {
		name, frame string
		want        reason
	}{
		{"router advertisement behind options", "\x33\x33\x00\x00\x00\x01" + src + behindOptions(58, "\x86"+strings.Repeat("\x00", 15)), kept},
		{"DHCP of IPv6 behind options", "\x33\x33\x00\x01\x00\x02" + src + behindOptions(17, "\x02\x22\x02\x23\x00\x08\x00\x00"), kept},
		{"VRRP over IPv6 behind options", "\x33\x33\x00\x00\x00\x12" + src + behindOptions(112, strings.Repeat("\x00", 16)), kept},
		{"other ICMP behind options", "\x33\x33\x00\x00\x00\x01" + src + behindOptions(58, "\x80"+strings.Repeat("\x00", 15)), passes},
		{"broadcast", "\xff\xff\xff\xff\xff\xff" + src + "\x88\xb6" + strings.Repeat("x", 46), passes},
		{"LLDP", "\x01\x80\xc2\x00\x00\x20" + src + "\x88\xcc" + strings.Repeat("x", 46), forbidden},
		{"CDP", "\x01\x00\x0c\xcc\xcc\xcc" + src + "\x00\x20" + strings.Repeat("x", 46), forbidden},
		{"loop probe", "\x03\x00\x4c\x48\x00\x01" + src + "\x88\xb5" + strings.Repeat("x", 46), probed},
		{"DHCP", "\xff\xff\xff\xff\xff\xff" + src + ip4(17, 67), kept},
		{"other UDP", "\xff\xff\xff\xff\xff\xff" + src + ip4(17, 99), passes},
		{"VRRP", "\x01\x00\x5e\x00\x00\x12" + src + ip4(112, 0), kept},
		{"link-local group", "\x01\x00\x5e\x00\x00\xfb" + src + ip4(17, 99), passes},
		{"wide group", "\x01\x00\x5e\x01\x02\x03" + src + ip4(17, 99), kept},
		{"BPDU", "\x01\x80\xc2\x00\x00\x00" + src + "\x00\x26" + strings.Repeat("x", 46), forbidden},
		{"LACP", "\x01\x80\xc2\x00\x00\x20" + src + "\x88\x09" + strings.Repeat("x", 46), forbidden},
		{"router advertisement", "\x33\x33\x00\x00\x00\x01" + src + "\x86\xdd\x60\x00\x00\x00\x00\x10\x3a\xff" + strings.Repeat("\x00", 32) + "\x86" + strings.Repeat("\x00", 15), kept},
		{"wide group of IPv6", "\x33\x33\x00\x01\x02\x03" + src + "\x86\xdd\x60" + strings.Repeat("\x00", 59), kept},
	} {
		if got := leaves(t, n, tap, tt.frame); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// passes is what leaves says of a frame that no rule drops.
const passes = numReasons

// leaves has a LAN port send a frame, and tells why the kernel drops it by a rule; passes, if it
// sends it to the other sites.
func leaves(t *testing.T, n *Net, port *os.File, frame string) reason {
	t.Helper()
	before := n.drops()[100]
	was, _ := n.Traffic(100)
	if k, err := port.Write([]byte(frame)); err != nil || k != len(frame) {
		t.Fatal(err)
	}
	now, _ := n.Traffic(100)
	for end := time.Now().Add(l2exttest.Patience); now.Sent == was.Sent && n.drops()[100] == before; now, _ = n.Traffic(100) {
		if time.Now().After(end) {
			t.Fatalf("% x was neither sent nor dropped", frame)
		}
	}
	if now.Sent > was.Sent {
		return passes
	}
	for why, sum := range n.drops()[100] {
		if sum != before[why] {
			return reason(why)
		}
	}
	t.Fatalf("% x was not counted", frame)
	return 0
}

// TestPortOfNewSegment: a host that speaks just before its bridge gets a segment is
// heard from then on, and not only some seconds later.
func TestPortOfNewSegment(t *testing.T) {
	ns := machine(t)
	tap, err := ns.Tap("lan0")
	check(t, err, ns.Bridge("br0", "lan0"))
	defer tap.Close()
	n := newNet(t, ns)
	port, err := n.nl.LinkByName("lan0")
	check(t, err)
	s, now := snooper{n: n, ports: make(map[int]portAt)}, time.Now()
	if p := s.port(now, port.Attrs().Index); p.on[0].vni != 0 {
		t.Errorf("a port of no segment is %+v", p)
	}
	a, err := n.Apply(t.Context(), []l2ext.Wish{prodDirect("br0")})
	check(t, err, a[0].Err)
	if p := s.port(now, port.Attrs().Index); p.on[0].vni != 100 || p.on[0].at.direct == 0 || p.name != "lan0" {
		t.Errorf("the port of a segment is %+v", p)
	}
}
