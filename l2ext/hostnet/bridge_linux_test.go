package hostnet

import (
	"errors"
	"testing"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
)

// TestMadeBridge makes a bridge with the MAC that it is to have.
func TestMadeBridge(t *testing.T) {
	ns := nstest.New(t)
	n := newNet(t, ns)
	w := prod("br0")
	w.Machine = l2ext.MAC{0x0a, 0x42, 1, 2, 3, 4}
	a, err := n.Apply(t.Context(), []l2ext.Wish{w})
	check(t, err, a[0].Err)
	if got, err := ns.MAC("br0"); err != nil || got != w.Machine.String() || a[0].Bridge != w.Machine {
		t.Errorf("it has %s, %v, %v", got, a[0].Bridge, err)
	}
}

// TestNoBridge is wished a segment on a device that is none.
func TestNoBridge(t *testing.T) {
	ns := nstest.New(t)
	check(t, nstest.Veth(ns, "lan0", ns, "lan1"))
	n := newNet(t, ns)
	a, err := n.Apply(t.Context(), []l2ext.Wish{prod("lan0")})
	check(t, err)
	if !errors.Is(a[0].Err, l2ext.ErrNoBridge) {
		t.Errorf("on a cable: %v", a[0].Err)
	}
}
