package l2ext_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestStretch talks across: small and full frames, IPv4 and IPv6, UDP and TCP. It looks at
// what only mode secure does: it cuts frames and lowers segment sizes.
func TestStretch(t *testing.T) {
	l := newLabIn(t, l2ext.Secure, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	echoUDP(t, b.host, ":7")
	for _, tt := range []struct {
		addr string
		full int // bytes of a datagram in a full frame of 1500
	}{{"10.77.0.2:7", 1472}, {"[fd77::2]:7", 1452}} {
		c := dialUDP(t, a.host, tt.addr)
		for _, n := range []int{1, 100, 1200, 1300, tt.full} {
			if err := echoed(c, n); err != nil {
				t.Errorf("%s: %v", tt.addr, err)
			}
		}
		if _, err := c.Write(make([]byte, tt.full+1)); err == nil {
			t.Errorf("%s: more than a full frame was sent", tt.addr)
		}
	}
	if a.count(l2ext.Fragmented) == 0 {
		t.Error("no frame was cut")
	}
	macA, macB := l2ext.MAC{2, 0, 0, 0, 0, 1}, l2ext.MAC{2, 0, 0, 0, 0, 2}
	until(t, "both hosts are bound", func() bool { return l.isAt(macA, "a") && l.isAt(macB, "b") })
	until(t, "addresses are known at the other site", func() bool {
		bind, _ := a.binding(macB)
		return slices.Contains(bind.IPs, netip.MustParseAddr("10.77.0.2")) && slices.Contains(bind.IPs, netip.MustParseAddr("fd77::2"))
	})
	fdb, err := a.gw.FDB()
	check(t, err)
	if all := strings.Join(fdb, "\n"); !strings.Contains(all, "lhvx100 "+macB.String()) || strings.Contains(all, "lhvx100 "+macA.String()) {
		t.Errorf("entries of site a:\n%s", all)
	}
	testTCP(t, l)
	if a.count(l2ext.Clamped) == 0 {
		t.Error("no SYN was clamped")
	}
}

// testTCP sends 1 MiB each way and looks at the segment size that both agree on.
func testTCP(t *testing.T, l *lab) {
	for _, addr := range []string{"10.77.0.2:8", "[fd77::2]:8"} {
		var ln net.Listener
		check(t, l.sites["b"].host.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }))
		var echo sync.WaitGroup
		echo.Go(func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.CopyN(c, c, 1<<20)
		})
		defer echo.Wait()
		defer ln.Close()
		var c net.Conn
		check(t, l.sites["a"].host.Do(func() (err error) { c, err = net.DialTimeout("tcp", addr, l2exttest.Patience); return err }))
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * l2exttest.Patience))
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(i * i >> 8)
		}
		go func() { c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: echo is equal %t, %v", addr, bytes.Equal(got, sent), err)
		}
	}
}

// TestClampSeen reads the SYN as it arrives in the other LAN. Only mode secure lowers its
// segment size.
func TestClampSeen(t *testing.T) {
	l := newLabIn(t, l2ext.Secure, l2exttest.Line{}, "a", "b")
	l.apply(t, l2ext.Policy{Unknown: l2ext.UnknownLimited})
	a, b := l.sites["a"], l.sites["b"]
	tap, err := b.gw.Tap("spy")
	check(t, err, b.gw.Plug("spy", bridgeName))
	defer tap.Close()
	check(t, a.host.Neighbour("eth0", "10.77.0.99", "02:00:00:00:00:99")) // unknown: flooded to all
	ctx, cancel := context.WithCancel(t.Context())
	var dial sync.WaitGroup
	defer dial.Wait()
	defer cancel()
	dial.Go(func() {
		a.host.Do(func() error {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", "10.77.0.99:9")
			if err == nil {
				c.Close()
			}
			return nil
		})
	})
	tap.SetReadDeadline(time.Now().Add(l2exttest.Patience))
	for f := make([]byte, 2048); ; {
		n, err := tap.Read(f)
		check(t, err)
		h, err := ether.Parse(f[:n])
		if err != nil || h.Type != ether.TypeIPv4 || f[23] != 6 {
			continue
		}
		if mss := binary.BigEndian.Uint16(f[34+22:]); mss != 1243-8-14-40 {
			t.Errorf("the SYN offers %d", mss)
		}
		return
	}
}

// TestStormIsLimited broadcasts as fast as it can.
func TestStormIsLimited(t *testing.T) {
	l := newLab(t, l2exttest.Line{})
	l.apply(t, l2ext.Policy{Unknown: l2ext.UnknownLimited})
	a := l.sites["a"]
	tap, err := a.gw.Tap("loud")
	check(t, err, a.gw.Plug("loud", bridgeName))
	defer tap.Close()
	storm := append(append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 0x77}, 0x88, 0xb5), make([]byte, 100)...)
	unknown := append(append([]byte{2, 0, 0, 0, 0, 0x88, 2, 0, 0, 0, 0, 0x77}, 0x88, 0xb5), make([]byte, 100)...)
	bpdu := append([]byte{1, 0x80, 0xc2, 0, 0, 2, 2, 0, 0, 0, 0, 0x77, 0x88, 0x09}, make([]byte, 100)...)
	start := time.Now()
	const n = 5000
	for range n {
		tap.Write(storm)
		tap.Write(unknown)
		tap.Write(bpdu)
	}
	all, since := uint64(0), time.Now()
	until(t, "the storm has passed", func() bool { // the kernel loses a part of it
		if now := a.count(l2ext.Sent) + a.count(l2ext.DropBroadcast) + a.count(l2ext.DropUnknown); now != all {
			all, since = now, time.Now()
		}
		return all > 0 && time.Since(since) > 100*time.Millisecond
	})
	allowed := uint64(float64(50+500)*(1+time.Since(start).Seconds())) + 50 // and what the hosts say themselves
	if sent := a.count(l2ext.Sent); sent > allowed || sent < 100 {
		t.Errorf("%d frames were sent, at most %d are allowed", sent, allowed)
	}
	l.apply(t, l2ext.Policy{Unknown: l2ext.UnknownLimited}) // reads what the kernel has counted
	if a.count(l2ext.DropKernel) == 0 || a.count(l2ext.DropUnknown) == 0 {
		t.Errorf("dropped: %v", a.m.Segments()[0].Counts)
	}
}

// TestCutAndHeal loses the link: what was learned meanwhile is told afterwards.
func TestCutAndHeal(t *testing.T) {
	l := newLab(t, l2exttest.Line{Delay: time.Millisecond})
	a, b := l.sites["a"], l.sites["b"]
	echoUDP(t, b.host, ":7")
	c := dialUDP(t, a.host, "10.77.0.2:7")
	check(t, echoed(c, 100))
	l.wire.Cut()
	mac := l2ext.MAC{2, 0, 0, 0, 0, 0x55}
	tap, err := a.gw.Tap("new")
	check(t, err, a.gw.Plug("new", bridgeName))
	defer tap.Close()
	tap.Write(ether.AppendAnnounce(nil, mac, netip.Addr{}))
	until(t, "the new host is seen", func() bool { _, ok := a.binding(mac); return ok })
	if _, ok := b.binding(mac); ok {
		t.Error("the new host was told through a cut wire")
	}
	l.wire.Heal()
	until(t, "the new host is told", func() bool { return l.isAt(mac, "a") })
	check(t, echoed(c, 1472))
}

// TestNothingIsLeft takes the segment away from a foreign bridge.
func TestNothingIsLeft(t *testing.T) {
	before := make(map[string]string)
	ns := map[string]*nstest.NS{}
	func() {
		l := newLab(t, l2exttest.Line{})
		for name, s := range l.sites {
			ns[name] = s.gw
			check(t, s.m.Apply(t.Context(), nil)) // the lab has attached it; detach to see the state before
			d, err := s.gw.Dump()
			check(t, err)
			before[name] = strings.ReplaceAll(d, "\n\n", "\n")
			other := map[string]string{"a": "b", "b": "a"}[name]
			check(t, s.m.Apply(t.Context(), []l2ext.Segment{{Name: "prod", VNI: 100, Bridge: bridgeName, Sites: []string{other}}}))
		}
		echoUDP(t, l.sites["b"].host, ":7")
		check(t, echoed(dialUDP(t, l.sites["a"].host, "10.77.0.2:7"), 1472))
		for _, s := range l.sites {
			check(t, s.m.Apply(t.Context(), nil))
		}
		for name, s := range l.sites {
			d, err := s.gw.Dump()
			check(t, err)
			if d != before[name] {
				t.Errorf("site %s before\n%s\nafter\n%s", name, before[name], d)
			}
		}
		l.end()
	}()
	for name, n := range ns {
		until(t, "the TUN is gone", func() bool {
			d, err := n.Dump()
			check(t, err)
			return !strings.Contains(d, "longhaul:") && !strings.Contains(d, "lhtun")
		})
		if d, _ := n.Dump(); !strings.Contains(d, "link "+bridgeName) {
			t.Errorf("site %s: the bridge is gone:\n%s", name, d)
		}
	}
}

// TestManyHosts lets a site learn many hosts at once; all of them arrive, also as entries of
// the VXLAN device, of which the port of mode secure-fast has none.
func TestManyHosts(t *testing.T) {
	l := newLabIn(t, l2ext.Secure, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	tap, err := a.gw.Tap("many")
	check(t, err, a.gw.Plug("many", bridgeName))
	defer tap.Close()
	count := func(s *site) (k int) {
		for _, b := range s.m.Segments()[0].Bindings {
			if b.Site == "a" && b.MAC[1] == 1 {
				k++
			}
		}
		return k
	}
	const n, step = 2000, 500 // in steps: the kernel's queue between TAP and bridge has 1000 places
	for i := range n {
		mac := l2ext.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
		tap.Write(ether.AppendAnnounce(nil, mac, netip.AddrFrom4([4]byte{10, 77, byte(1 + i>>8), byte(i)})))
		if (i+1)%step == 0 {
			until(t, fmt.Sprintf("%d hosts are bound at both sites", i+1), func() bool { return count(a) == i+1 && count(b) == i+1 })
		}
	}
	until(t, "the kernel of b has them", func() bool {
		fdb, err := b.gw.FDB()
		check(t, err)
		return strings.Count(strings.Join(fdb, "\n"), "lhvx100 02:01:") == 2*n
	})
}
