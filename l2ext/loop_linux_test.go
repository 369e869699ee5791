package l2ext_test

import (
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestCable plugs a real cable between the bridges of two sites. From the first
// probe that has passed it, at most one gateway lets broadcast through, and what
// both carry stays within the limits while it is there.
func TestCable(t *testing.T) {
	l := newLab(t, l2exttest.Line{Delay: 20 * time.Millisecond})
	a, b := l.sites["a"], l.sites["b"]
	echoUDP(t, b.host, ":7")
	check(t, echoed(dialUDP(t, a.host, "10.77.0.2:7"), 100))
	check(t, nstest.Veth(a.gw, "back", b.gw, "back"), a.gw.Plug("back", bridgeName))
	plugged := time.Now()
	check(t, b.gw.Plug("back", bridgeName))
	problem := func(s *site) string { return s.m.Segments()[0].Problem }
	until(t, "the back door is found", func() bool { return strings.Contains(problem(b), "shut at this site") })
	t.Logf("shut %v after the cable was plugged", time.Since(plugged))
	until(t, "the other site knows", func() bool { return strings.Contains(problem(a), "shut at site b") })
	// A broadcast now runs round at most by the cable, not by the tunnel.
	tap, err := a.gw.Tap("loud")
	check(t, err, a.gw.Plug("loud", bridgeName))
	defer tap.Close()
	before := b.count(l2ext.Received)
	for range 20 {
		tap.Write(append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x77\x88\xb6"), make([]byte, 50)...))
	}
	until(t, "broadcast is shut at b", func() bool { return b.count(l2ext.DropShut) >= 20 })
	if got := b.count(l2ext.Received) - before; got > 10 { // unicast of the hosts
		t.Errorf("site b has taken %d frames", got)
	}
	if got := a.count(l2ext.LoopTrips) + b.count(l2ext.LoopTrips); got != 2 {
		t.Errorf("%d trips", got)
	}
}
