package hostnet

import (
	"bytes"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/probe"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// TestDirectOwnFrames has the gateway say something to its LAN in mode direct, as it does all the
// time: that it goes to no other site is no frame dropped over a limit.
func TestDirectOwnFrames(t *testing.T) {
	n, tap := newLAN(t, machine(t))
	w := prodDirect("br0")
	apply(t, n, w)
	frame := append(append(append([]byte{}, probe.Dst[:]...), 0x0a, 0x4c, 0x48, 0, 0, 1, probe.Type>>8, probe.Type&0xff), make([]byte, 46)...)
	b := make([]byte, 2048)
	for i := range byte(3) { // when the last is there, the kernel has done with those before it
		frame[20] = i
		check(t, n.WritePacket(vxlan.Packet{VNI: w.VNI, From: vxlan.Everyone, To: vxlan.Self, Frame: frame}.Append(nil)))
		check(t, tap.SetReadDeadline(time.Now().Add(l2exttest.Patience)))
		for {
			k, err := tap.Read(b)
			check(t, err)
			if bytes.Equal(b[:k], frame) {
				break
			}
		}
	}
	if got := n.drops()[w.VNI][overLimit]; got != 0 {
		t.Errorf("%d frames were dropped over a limit", got)
	}
	if c, ok := n.Traffic(w.VNI); !ok || c.Sent != 0 {
		t.Errorf("%d frames went to other sites", c.Sent)
	}
}
