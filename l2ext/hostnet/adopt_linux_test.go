package hostnet

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// elements counts those of a set of the kernel.
func elements(t *testing.T, n *Net, s *nftables.Set) (all int) {
	t.Helper()
	check(t, n.withRules(func(c *nftables.Conn) error {
		es, err := c.GetSetElements(s)
		all = len(es)
		return err
	}))
	return all
}

// carried lists the entries by which a kernel sends to other sites, but for those of
// devices themselves.
func carried(t *testing.T, ns *nstest.NS) string {
	t.Helper()
	fdb, err := ns.FDB()
	check(t, err)
	fdb = slices.DeleteFunc(fdb, func(e string) bool {
		return !strings.HasPrefix(e, "fdb lhdx100") || strings.Contains(e, "state 0x80") && strings.Contains(e, "dst <nil>")
	})
	slices.Sort(fdb)
	return strings.Join(fdb, "\n")
}

// The gateways of the sites of TestDirectAdopt, and the machines at which they are.
var (
	gatewayB, gatewayC = l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 2}, l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 3}
	machineB, machineC = netip.MustParseAddr("10.78.0.2"), netip.MustParseAddr("10.78.0.3")
)

// adoptWish is what a gateway wishes that knows two other sites, b and c, and three hosts at b and one at c.
func adoptWish() l2ext.Wish {
	w := prodDirect("br0")
	w.Sites, w.Policy.Limits = []string{"b", "c"}, l2ext.Limits{Resolve: 100, Broadcast: 50, Multicast: 500, Unknown: 500}
	w.Direct.Sites = []l2ext.UnderlaySite{{Site: 16, Addr: machineB, MAC: gatewayB}, {Site: 17, Addr: machineC, MAC: gatewayC}}
	w.Entries = []l2ext.Entry{{MAC: adoptHost(1), Site: 16}, {MAC: adoptHost(2), Site: 16}, {MAC: adoptHost(3), Site: 16}, {MAC: adoptHost(4), Site: 17}}
	w.Direct.Neighbours = append(w.Direct.Neighbours, l2ext.Neighbour{IP: netip.MustParseAddr("10.77.0.44"), MAC: adoptHost(4)})
	w.Direct.Listeners.Groups = []l2ext.Group{{MAC: l2ext.MAC{1, 0, 0x5e, 1, 1, 1}, Sites: []vxlan.Endpoint{17}}}
	return w
}

func adoptHost(last byte) l2ext.MAC { return l2ext.MAC{0x52, 0x54, 0, 0, 0, last} }

// kernelHas is what TestDirectAdopt looks at.
type kernelHas struct {
	entries    string
	neighbours int // that the bridge answers for, of two
	machines   int // whose frames are let in
	away       int // MACs that are not to send here
	limit      int // of broadcasts from other sites, a second
	copies     int // of a group that c listens to
}

func (n *Net) has(t *testing.T, ns *nstest.NS) (h kernelHas) {
	t.Helper()
	br, err := n.nl.LinkByName("br0")
	check(t, err)
	neighbours, err := n.neighbours(br.Attrs().Index)
	check(t, err)
	for _, ip := range []string{"10.77.0.9", "10.77.0.44"} {
		if _, ok := neighbours[netip.MustParseAddr(ip)]; ok {
			h.neighbours++
		}
	}
	h.entries, h.machines = carried(t, ns), elements(t, n, peerSet(n.guardTable(underlayTable), false))
	h.away = elements(t, n, macSet(n.guardTable(ownerTable), "away", 100))
	device, err := n.nl.LinkByName("lhdx100")
	check(t, err)
	fdb, err := n.nl.NeighList(device.Attrs().Index, unix.AF_BRIDGE)
	check(t, err)
	for _, e := range fdb {
		if e.HardwareAddr.String() == "01:00:5e:01:01:01" && machineC == netip.AddrFrom4([4]byte(e.IP.To4())) {
			h.copies++
		}
	}
	check(t, n.withRules(func(c *nftables.Conn) error {
		rules, err := c.GetRules(n.table(), &nftables.Chain{Name: arrivePrefix + "100-broadcast", Table: n.table()})
		for _, r := range rules {
			for _, e := range r.Exprs {
				if l, ok := e.(*expr.Limit); ok {
					h.limit = int(l.Rate) // the last rule is that of all ports
				}
			}
		}
		return err
	}))
	return h
}

// crashed is a machine on which a gateway has died that had made adoptWish, and what its kernel had.
func crashed(t *testing.T) (ns *nstest.NS, before kernelHas) {
	t.Helper()
	ns = machine(t)
	check(t, operatorsBridge(ns))
	n := newNet(t, ns)
	apply(t, n, adoptWish())
	before = n.has(t, ns)
	if before.neighbours != 2 || before.machines != 2 || before.away != 4 || before.limit != 4*50 || before.copies != 1 {
		t.Errorf("before the crash: %+v", before)
	}
	n.tun.Close() // all that the kernel sees of a death
	waitGone(t, ns, "lhvx100")
	return ns, before
}

// blank is the wish of a gateway that knows the segment and no more.
func blank() l2ext.Wish {
	w := adoptWish()
	w.Entries, w.Direct.Neighbours, w.Direct.Sites, w.Direct.Listeners = nil, nil, nil, l2ext.Listeners{}
	return w
}

func wantKernel(t *testing.T, when string, got, want kernelHas) {
	t.Helper()
	if got != want {
		t.Errorf("%s there is\n%+v\nwant\n%+v", when, got, want)
	}
}

// TestDirectAdopt kills a gateway. The next one knows nothing at first, and leaves what carries
// frames; it then learns from one site after the other what is so, and what it has not learned
// of a site that has told all goes.
func TestDirectAdopt(t *testing.T) {
	ns, before := crashed(t)
	next := newNet(t, ns)
	w := blank()
	both := []l2ext.UnderlaySite{{Site: 16, MAC: gatewayB}, {Site: 17, MAC: gatewayC}}
	w.Direct.Adopted = l2ext.Adopted{Sites: both, Neighbours: true}
	for range 2 {
		apply(t, next, w)
		wantKernel(t, "at first", next.has(t, ns), before)
	}
	// c tells of a host that is at b, which has said nothing yet, and of its own.
	check(t, next.Point(100, []l2ext.Entry{{MAC: adoptHost(5), Site: 16}, {MAC: adoptHost(4), Site: 17}}))
	w.Entries = []l2ext.Entry{{MAC: adoptHost(5), Site: 16}, {MAC: adoptHost(4), Site: 17}}
	for range 2 {
		apply(t, next, w)
		if got := next.has(t, ns); !strings.Contains(got.entries, adoptHost(5).String()+" dst 10.78.0.2") || got.away != before.away+1 {
			t.Errorf("of a host of b there is %+v", got)
		}
	}
	// b is at another machine now; where its hosts are is not known before it has told.
	w.Direct.Sites = []l2ext.UnderlaySite{{Site: 16, Addr: netip.MustParseAddr("10.78.0.22"), MAC: gatewayB}}
	for range 2 {
		apply(t, next, w)
		got := next.has(t, ns)
		for _, want := range []string{
			adoptHost(1).String() + " dst 10.78.0.2 ", adoptHost(5).String() + " dst 10.78.0.22", gatewayB.String() + " dst 10.78.0.22",
			"00:00:00:00:00:00 dst 10.78.0.2 ", "00:00:00:00:00:00 dst 10.78.0.22", "00:00:00:00:00:00 dst 10.78.0.3",
		} {
			if !strings.Contains(got.entries, want) || got.machines != 3 || got.copies != 1 {
				t.Errorf("with another machine of b there is no %s in %+v", want, got)
			}
		}
	}
	// b has told all, c nothing. One of b's hosts turns out to be here.
	w.Entries = []l2ext.Entry{{MAC: adoptHost(1), Site: 16}}
	w.Direct.Adopted.Sites = both[1:]
	check(t, next.Point(100, []l2ext.Entry{{MAC: adoptHost(2)}}))
	for range 2 {
		apply(t, next, w)
		got := next.has(t, ns)
		if strings.Contains(got.entries, "dst 10.78.0.2 ") || strings.Contains(got.entries, adoptHost(3).String()) || strings.Contains(got.entries, adoptHost(2).String()) ||
			!strings.Contains(got.entries, adoptHost(4).String()+" dst 10.78.0.3") || got.machines != 2 || got.away != 2 {
			t.Errorf("when b has told all there is %+v", got)
		}
	}
	// c has told that it has none.
	w.Direct.Sites = append(w.Direct.Sites, l2ext.UnderlaySite{Site: 17, Addr: machineC, MAC: gatewayC})
	w.Direct.Adopted = l2ext.Adopted{}
	apply(t, next, w)
	if got := next.has(t, ns); strings.Contains(got.entries, adoptHost(4).String()) || got.neighbours != 0 || got.machines != 2 || got.away != 1 {
		t.Errorf("in the end there is %+v", got)
	}
}

// TestDirectAdoptSettling kills a gateway. The next one has heard from b and c all that they know, which may not be
// all: what hosts they do not name have stays, but where it leads elsewhere, or the host is found here or there.
func TestDirectAdoptSettling(t *testing.T) {
	ns, before := crashed(t)
	next := newNet(t, ns)
	w := blank()
	w.Direct.Sites = []l2ext.UnderlaySite{{Site: 16, Addr: machineB, MAC: gatewayB}, {Site: 17, Addr: netip.MustParseAddr("10.78.0.33"), MAC: gatewayC}}
	w.Direct.Adopted.Settling = w.Direct.Sites
	for range 2 {
		apply(t, next, w)
		got := next.has(t, ns)
		if strings.Count(got.entries, "dst 10.78.0.2 ") != strings.Count(before.entries, "dst 10.78.0.2 ") || strings.Contains(got.entries, "dst 10.78.0.3 ") ||
			got.machines != 2 || got.away != 3 || got.copies != 0 || got.limit != before.limit || got.neighbours != 0 {
			t.Errorf("of hosts that are not named there is %+v", got)
		}
	}
	check(t, next.Point(100, []l2ext.Entry{{MAC: adoptHost(1)}, {MAC: adoptHost(2), Site: 17}}))
	w.Entries = []l2ext.Entry{{MAC: adoptHost(2), Site: 17}}
	for range 2 {
		apply(t, next, w)
		got := next.has(t, ns)
		if strings.Contains(got.entries, adoptHost(1).String()) || !strings.Contains(got.entries, adoptHost(2).String()+" dst 10.78.0.33 ") ||
			!strings.Contains(got.entries, adoptHost(3).String()+" dst 10.78.0.2 ") || got.away != 2 {
			t.Errorf("of hosts that turn up elsewhere there is %+v", got)
		}
	}
	w.Direct.Adopted = l2ext.Adopted{}
	apply(t, next, w)
	if got := next.has(t, ns); strings.Contains(got.entries, adoptHost(3).String()) || got.away != 1 {
		t.Errorf("in the end there is %+v", got)
	}
}

// TestDirectAdoptNotRemoved kills a gateway. When the next one starts, site c has been removed: it is cut off
// at once, and what is there for b stays.
func TestDirectAdoptNotRemoved(t *testing.T) {
	ns, before := crashed(t)
	next := newNet(t, ns)
	w := blank()
	w.Sites = w.Sites[:1]
	w.Direct.Adopted = l2ext.Adopted{Sites: []l2ext.UnderlaySite{{Site: 16, MAC: gatewayB}}, Neighbours: true}
	apply(t, next, w)
	got := next.has(t, ns)
	if strings.Contains(got.entries, "10.78.0.3") || got.neighbours != 1 || got.machines != 1 || got.away != 3 || got.copies != 0 || got.limit != before.limit/2 {
		t.Errorf("without c there is %+v", got)
	}
	if b := strings.Count(before.entries, "dst 10.78.0.2 "); b != 5 || strings.Count(got.entries, "dst 10.78.0.2 ") != b {
		t.Errorf("of b there was %s\nand is\n%s", before.entries, got.entries)
	}
}

// TestDirectAdoptStrangers has a segment that is everywhere: what is there stays also for
// sites that the gateway does not know yet. One that it knows to be elsewhere is none.
func TestDirectAdoptStrangers(t *testing.T) {
	ns, before := crashed(t)
	next := newNet(t, ns)
	w := blank()
	w.Sites, w.Everywhere = nil, true
	w.Direct.Adopted = l2ext.Adopted{Strangers: true, Neighbours: true}
	for range 2 {
		apply(t, next, w)
		wantKernel(t, "at first", next.has(t, ns), before)
	}
	w.Direct.Sites = []l2ext.UnderlaySite{{Site: 16, Addr: machineB, MAC: gatewayB}} // and it has told that it has no hosts
	apply(t, next, w)
	if got := next.has(t, ns); strings.Contains(got.entries, adoptHost(1).String()) || !strings.Contains(got.entries, adoptHost(4).String()) || got.machines != 2 || got.away != 1 {
		t.Errorf("when b has told all there is %+v", got)
	}
	w.Direct.Adopted = l2ext.Adopted{}
	apply(t, next, w)
	if got := next.has(t, ns); strings.Contains(got.entries, "10.78.0.3") || got.machines != 1 || got.neighbours != 0 {
		t.Errorf("in the end there is %+v", got)
	}
}

// TestDirectAdoptOther has another segment of the number of a dead gateway's: it takes over nothing.
func TestDirectAdoptOther(t *testing.T) {
	ns, _ := crashed(t)
	next := newNet(t, ns)
	w := blank()
	w.Name, w.Direct.Adopted = "test", l2ext.Adopted{Sites: []l2ext.UnderlaySite{{Site: 16, MAC: gatewayB}}, Strangers: true, Neighbours: true}
	apply(t, next, w)
	if got := carried(t, ns); got != "" {
		t.Errorf("there is\n%s", got)
	}
}
