package hostnet

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
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

// TestDirectAdopt kills a gateway. The next one knows nothing at first, and leaves what carries
// frames; it then learns bit by bit what is so, and in the end what it has not learned goes.
func TestDirectAdopt(t *testing.T) {
	ns := machine(t)
	check(t, operatorsBridge(ns))
	full := prodDirect("br0")
	other, gone := l2ext.MAC{0x52, 0x54, 0, 0, 0, 0x77}, l2ext.MAC{0x52, 0x54, 0, 0, 0, 0x78}
	full.Entries = append(full.Entries, l2ext.Entry{MAC: other, Site: 16}, l2ext.Entry{MAC: gone, Site: 16})
	n := newNet(t, ns)
	apply(t, n, full)
	before := carried(t, ns)
	n.tun.Close() // all that the kernel sees of a death
	waitGone(t, ns, "lhvx100")

	next := newNet(t, ns)
	know := func() (string, int, int, int) {
		br, err := next.nl.LinkByName("br0")
		check(t, err)
		neighbours, err := next.neighbours(br.Attrs().Index)
		check(t, err)
		_, fixed := neighbours[netip.MustParseAddr("10.77.0.9")]
		known := map[bool]int{true: 1}[fixed]
		return carried(t, ns), known, elements(t, next, peerSet(next.guardTable(underlayTable), false)), elements(t, next, macSet(next.guardTable(ownerTable), "away", 100))
	}
	wantKnown := func(when, want string, wantNeighbour, wantPeers, wantAway int) {
		t.Helper()
		if got, neighbour, peers, away := know(); got != want || neighbour != wantNeighbour || peers != wantPeers || away != wantAway {
			t.Errorf("%s: %d neighbours, %d machines, %d MACs away, want %d, %d, %d; entries\n%s\nwant\n%s", when, neighbour, peers, away, wantNeighbour, wantPeers, wantAway, got, want)
		}
	}
	blank := full
	blank.Entries, blank.Direct = nil, &l2ext.Underlay{Local: full.Direct.Local, Self: full.Direct.Self, Adopt: true}
	for range 2 {
		apply(t, next, blank)
		wantKnown("at first", before, 1, 1, 1+len(full.Entries))
	}
	// A host of a site that has not said where it is.
	check(t, next.Point(100, []l2ext.Entry{{MAC: other, Site: 16}}))
	wantKnown("after a host", before, 1, 1, 1+len(full.Entries))
	blank.Entries = full.Entries[:1]
	apply(t, next, blank)
	wantKnown("after a host of a site without an address", before, 1, 1, 1+len(full.Entries))
	// One that turns out to be here.
	check(t, next.Point(100, []l2ext.Entry{{MAC: gone}}))
	if got := carried(t, ns); strings.Contains(got, gone.String()) {
		t.Errorf("of a host that is here there is\n%s", got)
	}
	// The site is at another machine now.
	moved := *full.Direct
	moved.Sites = []l2ext.UnderlaySite{{Site: 16, Addr: netip.MustParseAddr("10.78.0.3"), MAC: full.Direct.Sites[0].MAC}}
	moved.Adopt = true
	blank.Direct = &moved
	apply(t, next, blank)
	got := carried(t, ns)
	for _, want := range []string{full.Entries[0].MAC.String() + " dst 10.78.0.3", other.String() + " dst 10.78.0.2", "00:00:00:00:00:00 dst 10.78.0.2", "00:00:00:00:00:00 dst 10.78.0.3"} {
		if !strings.Contains(got, want) {
			t.Errorf("with a new machine there is no %s in\n%s", want, got)
		}
	}
	// All has been said.
	last := moved
	last.Adopt, last.Neighbours = false, nil
	blank.Direct = &last
	apply(t, next, blank)
	if got, neighbour, peers, away := know(); strings.Contains(got, "10.78.0.2") || strings.Contains(got, other.String()) || neighbour != 0 || peers != 1 || away != 1 {
		t.Errorf("in the end: %d neighbours, %d machines, %d MACs away; entries\n%s", neighbour, peers, away, got)
	}
}

// TestDirectAdoptOther has another segment of the number of a dead gateway's: it takes over nothing.
func TestDirectAdoptOther(t *testing.T) {
	ns := machine(t)
	check(t, operatorsBridge(ns))
	n := newNet(t, ns)
	apply(t, n, prodDirect("br0"))
	n.tun.Close()
	waitGone(t, ns, "lhvx100")
	next := newNet(t, ns)
	w := prodDirect("br0")
	w.Name, w.Entries, w.Direct.Sites, w.Direct.Adopt = "test", nil, nil, true
	apply(t, next, w)
	if got := carried(t, ns); got != "" {
		t.Errorf("there is\n%s", got)
	}
}
