package hostnet

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// TestDirectAnycast has the kernel keep at its site what is of a gateway that each
// site has, as l2ext.Policy does in mode secure, and nothing else.
func TestDirectAnycast(t *testing.T) {
	n, tap := newLAN(t, machine(t))
	host, gw := l2ext.MAC{2, 0, 0, 0, 0, 0x77}, l2ext.MAC{2, 0, 0, 0, 0, 0xfe}
	ip4, ip6 := netip.MustParseAddr("10.77.0.254"), netip.MustParseAddr("fd77::fe")
	w := prodDirect("br0")
	w.Policy = l2ext.Policy{
		Gateway: l2ext.GatewayAnycast, GatewayMAC: gw, GatewayIPs: []netip.Addr{ip4, ip6, ip4}, Unknown: l2ext.UnknownLimited,
		Limits: l2ext.Limits{Resolve: 100, Broadcast: 100, Multicast: 100, Unknown: 100},
	}
	apply(t, n, w)
	to := func(dst, src l2ext.MAC) string {
		return string(dst[:]) + string(src[:]) + "\x88\xb6" + strings.Repeat("x", 46)
	}
	ask := func(target, sender string) string {
		q := ether.Question{Target: netip.MustParseAddr(target), Sender: netip.MustParseAddr(sender)}
		return string(ether.AppendQuestion(nil, host, q))
	}
	for _, tt := range []struct {
		name, frame string
		passes      bool
	}{
		{"a broadcast", to(ether.Broadcast, host), true},
		{"for the gateway", to(gw, host), false},
		{"a broadcast of the gateway", to(ether.Broadcast, gw), false},
		{"for a neighbour of its number", to(l2ext.MAC{2, 0, 0, 0, 0, 0xff}, host), true},
		{"of a virtual router", to(ether.Broadcast, l2ext.MAC{0, 0, 0x5e, 0, 1, 7}), false},
		{"for a virtual router", to(l2ext.MAC{0, 0, 0x0c, 0x9f, 0xf3, 7}, host), false},
		{"of no virtual router", to(ether.Broadcast, l2ext.MAC{0, 0, 0x5e, 0, 3, 7}), true},
		{"who has the gateway's address", ask("10.77.0.254", "10.77.0.9"), false},
		{"a host says that it has it", ask("10.77.0.5", "10.77.0.254"), false},
		{"who has another", ask("10.77.0.8", "10.77.0.9"), true},
		{"who has its address of IPv6", ask("fd77::fe", "fd77::9"), false},
		{"a host says that it has that", ask("fd77::5", "fd77::fe"), false},
		{"who has another of IPv6", ask("fd77::8", "fd77::9"), true},
	} {
		if passed := leaves(t, n, tap, tt.frame) == passes; passed != tt.passes {
			t.Errorf("%s: passed %t", tt.name, passed)
		}
	}
}

// TestVirtualRouters compares the ranges of the kernel with what l2ext goes by, at
// their edges.
func TestVirtualRouters(t *testing.T) {
	es := gatewayMACs(l2ext.Policy{GatewayMAC: l2ext.MAC{0, 0, 0x5e, 0, 1, 7}})
	number := func(e nftables.SetElement) uint64 { return binary.BigEndian.Uint64(append([]byte{0, 0}, e.Key...)) }
	for i, edge := range es {
		for _, by := range []int64{-1 << 8, -1, 0, 1, 1 << 8} {
			at := number(edge) + uint64(by)
			in := false
			for k := 0; k < len(es); k += 2 {
				in = in || at >= number(es[k]) && at < number(es[k+1])
			}
			mac := l2ext.MAC(binary.BigEndian.AppendUint64(nil, at)[2:])
			if in != mac.VirtualRouter() {
				t.Errorf("element %d: %v is a virtual router: the kernel says %t", i, mac, in)
			}
		}
	}
}
