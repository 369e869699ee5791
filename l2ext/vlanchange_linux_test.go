package l2ext_test

import (
	"net/netip"
	"testing"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestVLANChanged gives a segment another VLAN at one site while it carries, and takes it
// back: its port is plugged in anew each time, and carries again.
func TestVLANChanged(t *testing.T) {
	of := vlans{"a": 100}
	l := newVLANLab(t, l2exttest.Line{}, of, "a", "b")
	echoUDP(t, l.sites["b"].host, ":7")
	talk := func() {
		t.Helper()
		check(t, echoed(dialUDP(t, l.sites["a"].host, "10.77.0.2:7"), 1472))
		check(t, echoed(dialUDP(t, l.sites["a"].host, "[fd77::2]:7"), 1452))
	}
	talk()
	l.applyVLANs(t, vlans{"a": 100, "b": 250})
	guest, mac := l.spy(t, "b", "guest"), l2ext.MAC{2, 0, 0, 0, 1, 2}
	until(t, "a host of the new VLAN is known", func() bool {
		_, err := guest.tap.Write(ether.AppendTagged(nil, ether.AppendAnnounce(nil, mac, netip.MustParseAddr("10.77.0.102")), 250))
		check(t, err)
		b, ok := l.sites["a"].binding(mac)
		return ok && b.Site == "b"
	})
	l.applyVLANs(t, of)
	talk()
}
