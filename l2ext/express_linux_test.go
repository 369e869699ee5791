package l2ext_test

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestStretchExpress talks across in mode secure-fast, through both kernels: small
// and full frames, IPv4 and IPv6, UDP and TCP with the kernel's own segmentation.
func TestStretchExpress(t *testing.T) {
	l := newLabIn(t, l2ext.SecureFast, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	until(t, "both ways work", func() bool { return echoReady(l) })
	echoUDP(t, b.host, ":7")
	for _, tt := range []struct {
		addr string
		full int // bytes of a datagram in a full frame of 1500
	}{{"10.77.0.2:7", 1472}, {"[fd77::2]:7", 1452}} {
		c := dialUDP(t, a.host, tt.addr)
		for _, n := range []int{1, 100, 1300, tt.full} {
			if err := echoed(c, n); err != nil {
				t.Errorf("%s: %v", tt.addr, err)
			}
		}
	}
	macA, macB := l2ext.MAC{2, 0, 0, 0, 0, 1}, l2ext.MAC{2, 0, 0, 0, 0, 2}
	until(t, "both hosts are bound", func() bool { return l.isAt(macA, "a") && l.isAt(macB, "b") })
	before := a.count(l2ext.Sent)
	testTCP(t, l)
	if frames := a.count(l2ext.Sent) - before; frames > 1200 { // 2 MiB each way, two families: 2900 full frames
		t.Errorf("%d frames: the kernel cuts them before we get them", frames)
	}
	for _, s := range l.sites {
		for c, n := range s.m.Segments()[0].Counts {
			if c.Dropped() && n > 0 && c != l2ext.DropPeerDown && c != l2ext.DropUnknown && c != l2ext.DropLocal {
				t.Errorf("site %s: %d %v", s.name, n, c)
			}
		}
	}
}

// echoReady tells whether datagrams pass both ways.
func echoReady(l *lab) bool {
	for _, s := range l.sites {
		for other := range l.sites {
			if other == s.name {
				continue
			}
			if v := s.m.Segments()[0]; v.Problem != "" || !v.Lanes[other].Works {
				return false
			}
		}
	}
	return true
}
