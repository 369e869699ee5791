package hostnet

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/probe"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// TestDirectEchoes: gateways' echoes pass between the gateway and the underlay; a
// host of the LAN can neither send one nor hear one, not even one to a gateway that
// the kernel has not been told of yet.
func TestDirectEchoes(t *testing.T) {
	n, tap := newLAN(t, machine(t))
	w := prodDirect("br0")
	apply(t, n, w)
	own, far := w.Direct.Self, w.Direct.Sites[0].MAC
	crossed := func() uint64 {
		traffic, _ := n.Traffic(100)
		return traffic.Sent
	}
	toGateway, toFar := sent(t, n), crossed()
	for _, e := range []probe.Echo{{Src: far, Dst: own}, {Src: far, Dst: own, Reply: true}, {Src: own, Dst: far}, {Dst: far, Reply: true}} {
		_, err := tap.Write(e.Append(nil))
		check(t, err)
	}
	if g, f := sent(t, n)-toGateway, crossed()-toFar; g != 0 || f != 0 {
		t.Errorf("of a host's echoes %d came to the gateway, %d to other sites", g, f)
	}
	say := func(frame []byte) {
		check(t, n.WritePacket(vxlan.Packet{VNI: 100, From: vxlan.Everyone, To: vxlan.Self, Frame: frame}.Append(nil)))
	}
	say(probe.Echo{Src: own, Dst: far}.Append(nil))
	for end := time.Now().Add(l2exttest.Patience); crossed() == toFar; {
		if time.Now().After(end) {
			t.Fatal("the gateway's own echo has not crossed")
		}
	}
	say(probe.Echo{Src: own, Dst: l2ext.MAC{0x0e, 0x4c, 9, 9, 9, 9}}.Append(nil))
	say(frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46))
	check(t, tap.SetReadDeadline(time.Now().Add(l2exttest.Patience)))
	for b := make([]byte, 2048); ; {
		k, err := tap.Read(b)
		check(t, err)
		if string(b[12:14]) == "\x88\xb6" {
			return
		}
		if _, err := probe.ParseEcho(b[:k]); err == nil {
			t.Error("a host has heard an echo")
		}
	}
}
