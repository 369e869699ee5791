package l2ext_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// underlay is a network between the machines of a lab: a bridge of its own.
type underlay struct {
	ns *nstest.NS
}

// newDirectLab is a lab in mode direct, whose underlay works.
func newDirectLab(t testing.TB, line l2exttest.Line, names ...string) (*lab, *underlay) {
	t.Helper()
	l := newLabIn(t, l2ext.Direct, line, names...)
	u := newUnderlay(t, l)
	until(t, "the underlay works between all sites", l.waysUp)
	return l, u
}

func newUnderlay(t testing.TB, l *lab) *underlay {
	t.Helper()
	u := &underlay{ns: nstest.New(t)}
	check(t, u.ns.Bridge("net0"))
	i := 0
	for _, name := range []string{"a", "b", "c"} {
		s := l.sites[name]
		if s == nil {
			continue
		}
		check(t, nstest.Veth(s.gw, "wan0", u.ns, "to"+name), u.ns.Plug("to"+name, "net0"))
		check(t, s.gw.SetMTU("wan0", 1600), u.ns.SetMTU("to"+name, 1600))
		check(t, s.gw.Addr("wan0", fmt.Sprintf("%v/24", underlayOf(i))))
		i++
	}
	return u
}

// waysUp tells whether each site's full frames come back from each other.
func (l *lab) waysUp() bool {
	for _, s := range l.sites {
		v := s.m.Segments()[0]
		if v.Problem != "" || slices.ContainsFunc(v.Ways, func(w l2ext.Way) bool { return !w.Up }) {
			return false
		}
	}
	return true
}

func (s *site) problem() string { return s.m.Segments()[0].Problem }

// TestDirectStretch talks across three sites: small and full frames, IPv4 and
// IPv6, UDP and TCP; nothing of it goes by the link.
func TestDirectStretch(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
	for _, s := range l.sites {
		echoUDP(t, s.host, ":7")
	}
	for i, from := range []string{"a", "b", "c"} {
		for k := range 3 {
			if i == k {
				continue
			}
			for _, tt := range []struct {
				addr string
				full int
			}{{fmt.Sprintf("10.77.0.%d:7", k+1), 1472}, {fmt.Sprintf("[fd77::%d]:7", k+1), 1452}} {
				for _, n := range []int{1, tt.full} {
					check(t, echoed(dialUDP(t, l.sites[from].host, tt.addr), n))
				}
			}
		}
	}
	if frames, _ := l.wire.Sent(); frames != 0 {
		t.Errorf("%d datagrams went by the link", frames)
	}
	a := l.sites["a"]
	until(t, "hosts are bound with their addresses", func() bool {
		b, _ := a.binding(l2ext.MAC{2, 0, 0, 0, 0, 2})
		return b.Site == "b" && slices.Contains(b.IPs, netip.MustParseAddr("10.77.0.2")) && slices.Contains(b.IPs, netip.MustParseAddr("fd77::2"))
	})
	if v := a.m.Segments()[0]; v.Mode != l2ext.Direct || v.Device != "lhdx100" || v.Counts[l2ext.Sent] < 10 || v.Counts[l2ext.Received] < 10 {
		t.Errorf("the segment is shown as %+v", v)
	}
	if _, err := a.m.Echo(t.Context(), "prod", "b", 1500); err != nil {
		t.Error(err)
	}
}

// TestDirectMove moves a VM there and back under probes from three sites, by the
// rules of mode secure: the flip loses little, and no frame goes by the link.
func TestDirectMove(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b", "c")
	v := boundVM(t, l)
	way := [2]string{"a", "b"}
	for series := range 3 {
		lost := make(map[string][]int)
		for i := range 5 {
			l.probedMove(t, v, fmt.Sprintf("job%d.%d", series, i), way, func(role string, n int, _ time.Duration) {
				lost[role] = append(lost[role], n)
			})
			way[0], way[1] = way[1], way[0]
		}
		worst := 0
		for role, n := range lost {
			t.Logf("client at the %s: lost %v with a pause of %v", role, n, pause)
			worst = max(worst, median(n))
		}
		t.Logf("Flip took %v", l.flips)
		if parked := l.sites["b"].count(l2ext.Parked); parked == 0 {
			t.Error("no frame has waited for the VM")
		}
		if worst <= 5 { // the pause's worth would be 60; a busy machine stalls the probe itself
			if frames, _ := l.wire.Sent(); frames != 0 {
				t.Errorf("%d datagrams went by the link", frames)
			}
			return
		}
	}
	t.Error("in three series the median of the probes lost was over 5")
}

// TestDirectCut cuts the underlay of a site: that is shown, at both ends, and
// nothing goes another way; when it is mended all works again.
func TestDirectCut(t *testing.T) {
	l, u := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
	a, b, c := l.sites["a"], l.sites["b"], l.sites["c"]
	for _, s := range l.sites {
		echoUDP(t, s.host, ":7")
	}
	toB, toC := dialUDP(t, a.host, "10.77.0.2:7"), dialUDP(t, a.host, "10.77.0.3:7")
	check(t, echoed(toB, 1472), echoed(toC, 1472))
	check(t, u.ns.Down("tob"))
	until(t, "the cut is shown at both ends", func() bool {
		return strings.Contains(a.problem(), "underlay to site b (10.78.0.2): no frame comes back") &&
			strings.Contains(b.problem(), "underlay to site a (10.78.0.1): no frame comes back")
	})
	check(t, echoed(toC, 1472)) // the others do not suffer
	if c.m.Segments()[0].Ways[0].Up != true {
		t.Error("the way from c to a is down, too")
	}
	toB.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	toB.Write([]byte("hello"))
	if n, err := toB.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes have come back over a cut underlay", n)
	}
	if frames, _ := l.wire.Sent(); frames != 0 {
		t.Errorf("%d datagrams went by the link", frames)
	}
	check(t, u.ns.Up("tob"))
	until(t, "it works again", l.waysUp)
	check(t, echoed(toB, 1472))
}

// TestDirectSmallUnderlay has an underlay that loses what is long, as one does
// whose firewall drops fragments: that is told apart from a cut.
func TestDirectSmallUnderlay(t *testing.T) {
	l, u := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	check(t, u.ns.SetMTU("toa", 1400), u.ns.SetMTU("tob", 1400), u.ns.SetMTU("net0", 1400))
	until(t, "it is shown", func() bool {
		return strings.Contains(l.sites["a"].problem(), "small frames come back, those of 1500 bytes do not")
	})
}

// TestDirectUnderlayOf1500 has an underlay of which a full frame of the segment needs two
// packets, as its VXLAN header does not fit: the kernel takes the segment's MTU all the
// same, cuts what is outside, and joins it again.
func TestDirectUnderlayOf1500(t *testing.T) {
	l := newLabIn(t, l2ext.Direct, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	u := newUnderlay(t, l)
	for name, s := range l.sites {
		check(t, s.gw.SetMTU("wan0", 1500), u.ns.SetMTU("to"+name, 1500))
	}
	until(t, "full frames come back", l.waysUp)
	echoUDP(t, l.sites["b"].host, ":7")
	c := dialUDP(t, l.sites["a"].host, "10.77.0.2:7")
	raw, err := c.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) { // what may not be cut is refused, by ICMP
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	}))
	check(t, err, echoed(c, 1472))
}

// TestModesDoNotMix has a site carry the segment in the other mode: both tell so,
// and nothing passes, neither frames nor bindings.
func TestModesDoNotMix(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b", "c")
	a, b, c := l.sites["a"], l.sites["b"], l.sites["c"]
	for _, s := range l.sites {
		echoUDP(t, s.host, ":7")
	}
	toB := dialUDP(t, a.host, "10.77.0.2:7")
	check(t, echoed(toB, 100))
	in := func(s *site, mode l2ext.Mode, others ...string) {
		check(t, s.m.Apply(t.Context(), []l2ext.Segment{{Name: "prod", VNI: 100, Bridge: bridgeName, Sites: others, Mode: mode}}))
	}
	in(b, l2ext.Secure, "a", "c")
	until(t, "all tell so", func() bool {
		return strings.Contains(a.problem(), "site b carries the segment in mode secure and this site in mode direct: nothing passes between them") &&
			strings.Contains(b.problem(), "site a carries the segment in mode direct and this site in mode secure: nothing passes between them")
	})
	toB.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	toB.Write([]byte("hello"))
	for b, err := make([]byte, 100), error(nil); err == nil; { // on a busy machine answers may wait here of before, which are longer
		var n int
		if n, err = toB.Read(b); err == nil && n == len("hello") {
			t.Error("a frame has crossed between two modes")
		}
	}
	check(t, echoed(dialUDP(t, a.host, "10.77.0.3:7"), 1472)) // a and c go on
	mac := l2ext.MAC{2, 0, 0, 0, 0, 0x55}
	tap, err := b.gw.Tap("new")
	check(t, err, b.gw.Plug("new", bridgeName))
	defer tap.Close()
	tap.Write(ether.AppendAnnounce(nil, mac, netip.Addr{}))
	until(t, "the new host is seen", func() bool { _, ok := b.binding(mac); return ok })
	tap.Write(frameTo(ether.Broadcast, mac, 100))
	until(t, "a broadcast is dropped for its mode", func() bool { return b.count(l2ext.DropMode) > 0 })
	if _, ok := a.binding(mac); ok {
		t.Error("a binding has crossed between two modes")
	}
	in(b, l2ext.Direct, "a", "c")
	until(t, "all agree again", l.waysUp)
	until(t, "what was kept back is told", func() bool { _, ok := a.binding(mac); _, also := c.binding(mac); return ok && also })
	check(t, echoed(toB, 1472))
	in(a, l2ext.Secure, "b", "c") // and all to the other mode, one after the other
	in(b, l2ext.Secure, "a", "c")
	in(c, l2ext.Secure, "a", "b")
	until(t, "no site sees a problem", func() bool { return a.problem() == "" && b.problem() == "" && c.problem() == "" })
	check(t, echoed(toB, 1472))
}

// TestDirectStranger sends VXLAN to a site from a machine of the underlay that is
// no site: the kernel drops it.
func TestDirectStranger(t *testing.T) {
	l, u := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	stranger := nstest.New(t)
	check(t, nstest.Veth(stranger, "eth0", u.ns, "odd"), u.ns.Plug("odd", "net0"), stranger.Addr("eth0", "10.78.0.9/24"))
	spy, err := l.sites["a"].gw.Tap("spy")
	check(t, err, l.sites["a"].gw.Plug("spy", bridgeName))
	defer spy.Close()
	packet := func(mark byte) []byte {
		f := frameTo(ether.Broadcast, l2ext.MAC{2, 0, 0, 0, 0, mark}, 100)
		return append([]byte{8, 0, 0, 0, 0, 0, 100, 0}, f...)
	}
	send := func(ns *nstest.NS, mark byte) {
		var c net.Conn
		check(t, ns.Do(func() (err error) { c, err = net.Dial("udp", "10.78.0.1:14790"); return err }))
		defer c.Close()
		_, err := c.Write(packet(mark))
		check(t, err)
	}
	for range 3 {
		send(stranger, 0x66)
	}
	send(l.sites["b"].gw, 0x67) // the same from a site arrives
	spy.SetReadDeadline(time.Now().Add(l2exttest.Patience))
	for b := make([]byte, 2048); ; {
		n, err := spy.Read(b)
		check(t, err)
		if n == 100 && b[11] == 0x66 {
			t.Error("a stranger's frame has come to the LAN")
		}
		if n == 100 && b[11] == 0x67 {
			return
		}
	}
}

// TestDirectTwin starts a VM twice: what the twin sends does not leave its site,
// and is told of.
func TestDirectTwin(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: 2 * time.Millisecond}, "a", "b", "c")
	v := boundVM(t, l)
	l.move(t, v, "j", [2]string{"a", "b"}, pause)
	until(t, "all sites agree", func() bool { return l.isAt(v.mac, "b") })
	<-time.After(1100 * time.Millisecond) // what was on its way has arrived
	spy, err := l.sites["c"].gw.Tap("spy")
	check(t, err, l.sites["c"].gw.Plug("spy", bridgeName))
	defer spy.Close()
	twin := v.taps["a"]
	var clients []func() probed
	shout := everyMilli(func() { twin.Write(frameTo(ether.Broadcast, v.mac, 99)) })
	for _, s := range l.sites {
		clients = append(clients, probe(t, s.host, v.ip+":7"))
	}
	until(t, "the twin is told of", func() bool {
		return strings.Contains(l.sites["a"].problem(), v.mac.String()) && l.sites["a"].count(l2ext.DropOwner) >= 100
	})
	shout()
	for i, stop := range clients {
		if p := stop(); p.lost > 20 { // a busy machine loses some
			t.Errorf("client %d lost %d", i, p.lost)
		}
	}
	heardNothing(t, spy, v.mac)
	if !l.isAt(v.mac, "b") {
		t.Error("the twin has taken the MAC")
	}
}

// heardNothing reads what has come to a port: nothing of 99 bytes may be from mac.
func heardNothing(t *testing.T, port *os.File, mac l2ext.MAC) {
	t.Helper()
	port.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for b := make([]byte, 2048); ; {
		n, err := port.Read(b)
		if err != nil {
			return
		}
		if n == 99 && l2ext.MAC(b[6:12]) == mac {
			t.Error("a frame of the twin has crossed")
			return
		}
	}
}

// TestDirectQuestions has hosts that have forgotten each other talk: no question
// arrives at another site.
func TestDirectQuestions(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	echoUDP(t, b.host, ":7")
	for _, s := range l.sites { // a bridge without IPv6 has no neighbours of it: questions cross
		check(t, s.gw.Sysctl("ipv6.conf."+bridgeName+".disable_ipv6", "0"))
	}
	to4, to6 := dialUDP(t, a.host, "10.77.0.2:7"), dialUDP(t, a.host, "[fd77::2]:7")
	check(t, echoed(to4, 100), echoed(to6, 100))
	ip4, ip6 := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	until(t, "the bridge answers", func() bool {
		var n int
		check(t, a.gw.Do(func() (err error) { n, err = countNeighbours(bridgeName, ip4, ip6); return err }))
		return n == 2
	})
	spy, err := b.gw.Tap("spy")
	check(t, err, b.gw.Plug("spy", bridgeName))
	defer spy.Close()
	forget(t, a.host)
	check(t, echoed(to4, 100), echoed(to6, 100))
	spy.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for f := make([]byte, 2048); ; {
		n, err := spy.Read(f)
		if err != nil {
			break
		}
		h, err := ether.Parse(f[:n])
		if q, ok := ether.Asked(h, f[:n]); err == nil && ok && !q.Probe && h.Src == (l2ext.MAC{2, 0, 0, 0, 0, 1}) && (q.Target == ip4 || q.Target == ip6) {
			t.Errorf("a question for %v has crossed", q.Target)
		}
	}
	check(t, a.m.Apply(t.Context(), nil))
	var left int
	check(t, a.gw.Do(func() (err error) { left, err = countNeighbours(bridgeName, ip4, ip6); return err }))
	if left != 0 {
		t.Errorf("%d neighbours are left on the operator's bridge", left)
	}
}

// TestDirectOneCopy: a broadcast reaches each other site once, within the limits.
func TestDirectOneCopy(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{}, "a", "b", "c")
	loud, err := l.sites["a"].gw.Tap("loud")
	check(t, err, l.sites["a"].gw.Plug("loud", bridgeName))
	defer loud.Close()
	spies := make(map[string]*os.File)
	for _, name := range []string{"b", "c"} {
		spy, err := l.sites[name].gw.Tap("spy")
		check(t, err, l.sites[name].gw.Plug("spy", bridgeName))
		defer spy.Close()
		spies[name] = spy
	}
	shout := frameTo(ether.Broadcast, l2ext.MAC{2, 0, 0, 0, 0, 0x77}, 100)
	for i := range 5 {
		shout[14] = byte(i)
		_, err := loud.Write(shout)
		check(t, err)
	}
	for name, spy := range spies {
		if got := heard(t, spy, 5); !slices.Equal(got, []byte{0, 1, 2, 3, 4}) {
			t.Errorf("site %s got %v", name, got)
		}
	}
	for i := range 5000 {
		shout[14] = byte(i)
		loud.Write(shout)
	}
	for name, spy := range spies {
		if got := heard(t, spy, 1000); len(got) > 500 { // 25 a second, and a burst; a slow machine takes seconds
			t.Errorf("site %s got %d frames of a storm", name, len(got))
		}
	}
}

// heard reads the numbers of up to n frames, until for a while none comes; probes do
// all the time.
func heard(t *testing.T, port *os.File, n int) (got []byte) {
	t.Helper()
	port.SetReadDeadline(time.Now().Add(l2exttest.Patience))
	for b := make([]byte, 2048); ; {
		k, err := port.Read(b)
		if err != nil {
			return got
		}
		if k != 100 || b[11] != 0x77 {
			continue
		}
		if got = append(got, b[14]); len(got) >= min(n, 5) {
			port.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		}
	}
}

// TestDirectCable plugs a cable between the bridges of two sites: one of them
// shuts its broadcast in the kernel.
func TestDirectCable(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: 5 * time.Millisecond}, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	check(t, nstest.Veth(a.gw, "back", b.gw, "back"), a.gw.Plug("back", bridgeName))
	plugged := time.Now()
	check(t, b.gw.Plug("back", bridgeName))
	until(t, "the back door is found", func() bool { return strings.Contains(b.problem(), "shut at this site") })
	t.Logf("shut %v after the cable was plugged", time.Since(plugged))
	until(t, "the other site knows", func() bool { return strings.Contains(a.problem(), "shut at site b") })
	tap, err := a.gw.Tap("loud")
	check(t, err, a.gw.Plug("loud", bridgeName))
	defer tap.Close()
	before := a.count(l2ext.Sent) + b.count(l2ext.Sent)
	for range 20 {
		tap.Write(frameTo(ether.Broadcast, l2ext.MAC{2, 0, 0, 0, 0, 0x77}, 100))
	}
	check(t, b.gw.Plug("back", ""))
	if n := a.count(l2ext.Sent) + b.count(l2ext.Sent) - before; n > 500 { // each broadcast once, and echoes; a loop has thousands
		t.Errorf("%d frames have crossed the underlay", n)
	}
}

// TestDirectNothingIsLeft takes a segment in mode direct away from a foreign
// bridge.
func TestDirectNothingIsLeft(t *testing.T) {
	l := newLabIn(t, l2ext.Direct, l2exttest.Line{}, "a", "b")
	newUnderlay(t, l)
	before := make(map[string]string)
	for name, s := range l.sites {
		check(t, s.m.Apply(t.Context(), nil))
		d, err := s.gw.Dump()
		check(t, err)
		before[name] = d
	}
	l.apply(t, l2ext.Policy{})
	until(t, "the underlay works", l.waysUp)
	echoUDP(t, l.sites["b"].host, ":7")
	check(t, echoed(dialUDP(t, l.sites["a"].host, "10.77.0.2:7"), 1472))
	for name, s := range l.sites {
		check(t, s.m.Apply(t.Context(), nil))
		d, err := s.gw.Dump()
		check(t, err)
		if d != before[name] {
			t.Errorf("site %s before\n%s\nafter\n%s", name, before[name], d)
		}
	}
}
