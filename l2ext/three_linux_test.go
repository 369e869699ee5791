package l2ext_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// forget empties the neighbour tables of a host.
func forget(t testing.TB, ns *nstest.NS) {
	t.Helper()
	check(t, ns.Do(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			list, err := netlink.NeighList(0, family)
			if err != nil {
				return err
			}
			for _, n := range list {
				if n.State&unix.NUD_NOARP == 0 {
					if err := netlink.NeighDel(&n); err != nil {
						return fmt.Errorf("forgetting %v: %w", n.IP, err)
					}
				}
			}
		}
		return nil
	}))
}

// questions counts the ARP and neighbour discovery frames that cross, but for
// those by which a host makes sure that an address is free: of the hosts' own
// link-local addresses, a while after they have come up.
func (l *lab) questions() *atomic.Int64 {
	n := new(atomic.Int64)
	l.wire.Watch(func(b []byte) {
		_, k, err := frag.Parse(b)
		if err != nil {
			return
		}
		h, err := ether.Parse(b[k:])
		if q, _ := ether.Asked(h, b[k:]); q.Probe {
			return
		}
		if err == nil && (h.Type == ether.TypeARP || h.Type == ether.TypeRARP || ether.ClassOf(h, b[k:]) == ether.Resolve) {
			n.Add(1)
		}
	})
	return n
}

// TestNoQuestionCrosses has hosts of three sites that have forgotten each other
// talk: with bindings, nobody's question crosses, nor an answer.
func TestNoQuestionCrosses(t *testing.T) {
	l := newLabOf(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
	names := []string{"a", "b", "c"}
	talk := func() {
		t.Helper()
		for i, from := range names {
			for k := range names {
				if i == k {
					continue
				}
				for _, addr := range []string{fmt.Sprintf("10.77.0.%d:7", k+1), fmt.Sprintf("[fd77::%d]:7", k+1)} {
					check(t, echoed(dialUDP(t, l.sites[from].host, addr), 100))
				}
			}
		}
	}
	for _, s := range l.sites {
		echoUDP(t, s.host, ":7")
	}
	talk()
	for k := range names {
		mac := l2ext.MAC{2, 0, 0, 0, 0, byte(k + 1)}
		ip4, ip6 := netip.AddrFrom4([4]byte{10, 77, 0, byte(k + 1)}), netip.MustParseAddr(fmt.Sprintf("fd77::%d", k+1))
		until(t, "all addresses are known everywhere", func() bool {
			return !slices.ContainsFunc(names, func(s string) bool {
				b, _ := l.sites[s].binding(mac)
				return !slices.Contains(b.IPs, ip4) || !slices.Contains(b.IPs, ip6)
			})
		})
	}
	crossed := l.questions()
	for _, s := range l.sites {
		forget(t, s.host)
	}
	talk()
	if n := crossed.Load(); n != 0 {
		t.Errorf("%d questions and answers crossed", n)
	}
	if l.sites["a"].count(l2ext.Answered) == 0 {
		t.Error("no question was answered at home")
	}
}

// TestTwinDisturbsNobody moves a VM, and starts it again at its source by
// mistake: the twin shouts, and no client of the VM notices, not even one that
// is on the LAN of the twin.
func TestTwinDisturbsNobody(t *testing.T) {
	l := newLabOf(t, l2exttest.Line{Delay: 2 * time.Millisecond}, "a", "b", "c")
	v := boundVM(t, l)
	l.move(t, v, "j", [2]string{"a", "b"}, pause)
	until(t, "all sites agree", func() bool { return l.isAt(v.mac, "b") })
	<-time.After(1100 * time.Millisecond) // what was on its way has arrived
	twin := v.taps["a"]
	shout := everyMilli(func() {
		twin.Write(frameTo(ether.Broadcast, v.mac, 100))
		twin.Write(frameTo(l2ext.MAC{2, 0, 0, 0, 0, 3}, v.mac, 100))
	})
	var clients []func() probed
	for _, s := range l.sites {
		clients = append(clients, probe(t, s.host, v.ip+":7"))
	}
	<-time.After(500 * time.Millisecond)
	until(t, "the twin has shouted", func() bool { return l.sites["a"].count(l2ext.DropOwner) >= 100 })
	shout()
	for i, stop := range clients {
		if p := stop(); p.lost > 20 { // a busy machine loses some; a taken MAC loses 500
			t.Errorf("client %d lost %d", i, p.lost)
		}
	}
	if !l.isAt(v.mac, "b") {
		t.Error("the twin has taken the MAC")
	}
}

// TestDeafSiteHeals cuts a third site off while a VM moves between the others:
// its client finds the VM again when the site is back.
func TestDeafSiteHeals(t *testing.T) {
	l := newLabOf(t, l2exttest.Line{Delay: 2 * time.Millisecond}, "a", "b", "c")
	v := newVM(t, l)
	c := dialUDP(t, l.sites["c"].host, v.ip+":7")
	check(t, echoed(c, 100))
	until(t, "the VM is bound", func() bool { return l.isAt(v.mac, "a") })
	l.wire.Isolate("c")
	l.move(t, v, "j", [2]string{"a", "b"}, time.Millisecond)
	if b, _ := l.sites["c"].binding(v.mac); b.Site != "a" {
		t.Errorf("the deaf site knows: %+v", b)
	}
	l.wire.Rejoin("c")
	until(t, "all sites agree", func() bool { return l.isAt(v.mac, "b") })
	check(t, echoed(c, 1472))
}

// TestOneCopy: a broadcast reaches each other site once.
func TestOneCopy(t *testing.T) {
	l := newLabOf(t, l2exttest.Line{}, "a", "b", "c")
	loud, err := l.sites["a"].gw.Tap("loud")
	check(t, err, l.sites["a"].gw.Plug("loud", bridgeName))
	defer loud.Close()
	shout := frameTo(ether.Broadcast, l2ext.MAC{2, 0, 0, 0, 0, 0x77}, 100)
	for _, name := range []string{"b", "c"} {
		spy, err := l.sites[name].gw.Tap("spy")
		check(t, err, l.sites[name].gw.Plug("spy", bridgeName))
		defer spy.Close()
		for i := range 5 {
			shout[14] = byte(i)
			if _, err := loud.Write(shout); err != nil {
				t.Fatal(err)
			}
		}
		var got []byte
		spy.SetReadDeadline(time.Now().Add(l2exttest.Patience))
		for b := make([]byte, 2048); len(got) == 0 || got[len(got)-1] != 4; {
			n, err := spy.Read(b)
			check(t, err)
			if n == 100 && b[11] == 0x77 {
				got = append(got, b[14])
			}
		}
		spy.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // another copy would be close behind
		for b := make([]byte, 2048); ; {
			n, err := spy.Read(b)
			if err != nil {
				break
			}
			if n == 100 && b[11] == 0x77 {
				got = append(got, b[14])
			}
		}
		if !slices.Equal(got, []byte{0, 1, 2, 3, 4}) {
			t.Errorf("site %s got %v", name, got)
		}
	}
}

// countNeighbours tells how many of some addresses a device of this namespace
// knows for good.
func countNeighbours(device string, ips ...netip.Addr) (n int, err error) {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return 0, err
	}
	list, err := netlink.NeighList(l.Attrs().Index, 0)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		if a, ok := netip.AddrFromSlice(e.IP); ok && e.State&unix.NUD_NOARP != 0 && slices.Contains(ips, a.Unmap()) {
			n++
		}
	}
	return n, nil
}
