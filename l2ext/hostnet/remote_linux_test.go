package hostnet

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
)

// TestOneRemote moves a MAC between two other sites, in mode direct: what is for it goes
// to the one that has it, once. The kernel takes a second remote for the MAC, says that
// all is well, and makes no use of it (vxlan_fdb_update_existing appends to groups and the zero
// MAC only): who adds a remote where one is to be replaced sends to the old site for ever.
func TestOneRemote(t *testing.T) {
	ns := nstest.New(t)
	far := newFarSites(t, ns)
	n, port := newLAN(t, ns)
	w := busyDirect()
	w.Direct.Sites = append(w.Direct.Sites, l2ext.UnderlaySite{Site: 17, Addr: netip.MustParseAddr("10.78.0.3"), MAC: l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 3}})
	mac := w.Entries[0].MAC
	apply(t, n, w)
	want := func(when string, sites ...byte) {
		t.Helper()
		if got := far.get(t, port, frame(string(mac[:]), "\x88\xb6", 46)); !slices.Equal(got, sites) {
			t.Errorf("%s: a frame comes to %v, want %v", when, got, sites)
		}
	}
	want("at first", 2)
	check(t, n.Point(100, []l2ext.Entry{{MAC: mac, Site: 17, Moves: true}}))
	want("when it has moved", 3)
	check(t, n.Point(100, []l2ext.Entry{{MAC: mac, Site: 16, Moves: true}}))
	want("when it is back", 2)

	at, _ := n.attachment(100)
	second := underlayEntry(at.direct, mac, netip.MustParseAddr("10.78.0.3"))
	second.Flags = second.Flags&^unix.NLM_F_REPLACE | unix.NLM_F_APPEND
	check(t, n.raw.executeAll([]*nl.NetlinkRequest{second})[0])
	want("with a remote that somebody has added", 2)
	w.Entries[0].Site = 17
	apply(t, n, w)
	want("as is wished then", 3)
}
