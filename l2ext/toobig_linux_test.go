package l2ext_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestTooBig has hosts on jumbo LANs send more than the segment carries: their
// kernels learn the MTU from the gateway, in both ways of being told. Site b
// allows more than site a, so that a answers for frames of b.
func TestTooBig(t *testing.T) {
	l := newLab(t, l2exttest.Line{})
	a, b := l.sites["a"], l.sites["b"]
	for _, s := range l.sites {
		check(t, s.host.SetMTU("eth0", 9000), s.gw.SetMTU("lan0", 9000), s.gw.SetMTU(bridgeName, 9000))
		echoUDP(t, s.host, ":7")
	}
	check(t, b.m.Apply(t.Context(), []l2ext.Segment{{Name: "prod", VNI: 100, Bridge: bridgeName, MTU: 9000, Sites: []string{"a"}}}))
	check(t, a.m.Apply(t.Context(), []l2ext.Segment{{Name: "prod", VNI: 100, Bridge: bridgeName, MTU: 1500, Sites: []string{"b"}}}))
	for _, tt := range []struct {
		from *site
		addr string
		head int // bytes of IP and UDP
	}{{a, "10.77.0.2:7", 28}, {a, "[fd77::2]:7", 48}, {b, "10.77.0.1:7", 28}, {b, "[fd77::1]:7", 48}} {
		c := dialUDP(t, tt.from.host, tt.addr)
		check(t, echoed(c, 100))
		until(t, tt.addr+": the sender's kernel knows the MTU", func() bool {
			_, err := c.Write(make([]byte, 4000))
			return errors.Is(err, unix.EMSGSIZE)
		})
		c = dialUDP(t, tt.from.host, tt.addr) // without the errors that wait in the other
		if err := echoed(c, 1500-tt.head); err != nil {
			t.Errorf("%s: %v", tt.addr, err)
		}
		if _, err := c.Write(make([]byte, 1501-tt.head)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%s: the sender's kernel has learned another MTU: %v", tt.addr, err)
		}
	}
	if n := a.count(l2ext.TooBig); n < 4 || b.count(l2ext.TooBig) != 0 {
		t.Errorf("%d answers at a, %d at b", n, b.count(l2ext.TooBig))
	}
}
