package l2ext_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// vlans are those that sites have for the segment "prod"; a site that is not in it has
// frames without tags.
type vlans map[string]uint16

// tag puts on what a NIC at a site sends.
func (v *vlans) tag(site string, frame []byte) []byte {
	if v == nil || (*v)[site] == 0 {
		return frame
	}
	return ether.AppendTagged(nil, frame, (*v)[site])
}

// untag takes off what it gets; ok is false for what is not its VLAN's.
func (v *vlans) untag(site string, frame []byte) (_ []byte, ok bool) {
	if v == nil {
		return frame, true
	}
	switch vid, ok := ether.VID(frame); {
	case !ok || vid != (*v)[site]:
		return nil, false
	case vid == 0:
		return frame, true
	}
	return ether.Untag(frame), true
}

// newVLANLab is a lab whose sites have these VLANs for the segment.
func newVLANLab(t testing.TB, line l2exttest.Line, of vlans, names ...string) *lab {
	t.Helper()
	mode := l2ext.Mode(*mode)
	if mode == l2ext.Direct {
		t.Skip("no VLANs in mode direct")
	}
	l := newLabOf(t, line, names...)
	for name, s := range l.sites {
		if of[name] != 0 {
			check(t, s.host.Tag("eth0", of[name]))
		}
	}
	l.applyVLANs(t, of)
	return l
}

// applyVLANs stretches the segment with these VLANs, and more segments.
func (l *lab) applyVLANs(t testing.TB, of vlans, more ...l2ext.Segment) {
	t.Helper()
	for name, s := range l.sites {
		wished := []l2ext.Segment{{Name: "prod", VNI: 100, Bridge: bridgeName, VLAN: of[name], Mode: l.mode}}
		wished = append(wished, more...)
		for i := range wished {
			wished[i].Sites = l.others(name)
		}
		check(t, s.m.Apply(t.Context(), wished))
	}
}

func (l *lab) others(name string) (all []string) {
	for other := range l.sites {
		if other != name {
			all = append(all, other)
		}
	}
	return all
}

// abc is a network of three sites, of which each has the segment another way.
var abc = vlans{"a": 100, "b": 250}

// TestVLANs has hosts talk that are in VLAN 100 at one site, in 250 at another, and
// without tags at the third: full packets, both versions of IP, and a lot of TCP.
func TestVLANs(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{Delay: time.Millisecond}, abc, "a", "b", "c")
	for _, s := range l.sites {
		echoUDP(t, s.host, ":7")
	}
	for name, s := range l.sites {
		for i, other := range []string{"a", "b", "c"} {
			if other == name {
				continue
			}
			check(t, echoed(dialUDP(t, s.host, fmt.Sprintf("10.77.0.%d:7", i+1)), 1472))
			check(t, echoed(dialUDP(t, s.host, fmt.Sprintf("[fd77::%d]:7", i+1)), 1452))
		}
	}
	for _, way := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", "a"}} {
		sent := bytes.Repeat([]byte("tagged and untagged "), 1<<16) // more than a MiB
		got, err := transfer(l.sites[way[0]], l.sites[way[1]], sent)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("from %s to %s: %d of %d bytes, %v", way[0], way[1], len(got), len(sent), err)
		}
	}
	for i, name := range []string{"a", "b", "c"} {
		mac, ip := l2ext.MAC{2, 0, 0, 0, 0, byte(i + 1)}, netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})
		until(t, "the host of "+name+" is bound with its address", func() bool {
			b, _ := l.sites["a"].binding(mac)
			return l.isAt(mac, name) && slices.Contains(b.IPs, ip)
		})
	}
}

// TestVLANAnswers: who asks in a VLAN for a host of another site is answered at home, in
// the VLAN.
func TestVLANAnswers(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{Delay: time.Millisecond}, abc, "a", "b", "c")
	for _, s := range l.sites {
		echoUDP(t, s.host, ":7")
	}
	talk := func() {
		for _, way := range []struct {
			from string
			to   int
		}{{"a", 2}, {"b", 3}, {"c", 1}} {
			check(t, echoed(dialUDP(t, l.sites[way.from].host, fmt.Sprintf("10.77.0.%d:7", way.to)), 100))
			check(t, echoed(dialUDP(t, l.sites[way.from].host, fmt.Sprintf("[fd77::%d]:7", way.to)), 100))
		}
	}
	talk()
	for i := range 3 {
		mac := l2ext.MAC{2, 0, 0, 0, 0, byte(i + 1)}
		want := []netip.Addr{netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("fd77::%d", i+1))}
		until(t, "all sites know the addresses", func() bool {
			for _, s := range l.sites {
				b, _ := s.binding(mac)
				if !slices.Contains(b.IPs, want[0]) || !slices.Contains(b.IPs, want[1]) {
					return false
				}
			}
			return true
		})
	}
	crossed := l.questions()
	for _, s := range l.sites {
		forget(t, s.host)
	}
	talk()
	if n := crossed.Load(); n != 0 && l.mode != l2ext.SecureFast {
		t.Errorf("%d questions and answers crossed", n)
	}
	for name, s := range l.sites {
		if s.count(l2ext.Answered) == 0 {
			t.Errorf("no question was answered at %s", name)
		}
	}
}

// A spy is a port of a site's bridge which notes what it gets.
type spy struct{ tap *os.File }

func (l *lab) spy(t testing.TB, site, name string) spy {
	t.Helper()
	tap, err := l.sites[site].gw.Tap(name)
	check(t, err, l.sites[site].gw.Plug(name, bridgeName))
	t.Cleanup(func() { tap.Close() })
	return spy{tap}
}

// marked is a broadcast that can be told from others, with a tag if vid is not 0.
func marked(mark byte, vid uint16) []byte {
	frame := frameTo(ether.Broadcast, l2ext.MAC{2, 0, 0, 0, 0, 0x77}, 100)
	frame[len(frame)-1] = mark // behind whatever tags
	if vid != 0 {
		frame = ether.AppendTagged(nil, frame, vid)
	}
	return frame
}

// marks reads so many marked broadcasts, and goes on a little longer: another copy would
// be close behind. It tells the mark and the VLAN of each.
func (s spy) marks(t testing.TB, count int) (got []string) {
	t.Helper()
	s.tap.SetReadDeadline(time.Now().Add(l2exttest.Patience))
	for b := make([]byte, 2048); ; {
		n, err := s.tap.Read(b)
		if err != nil {
			slices.Sort(got) // each port may have a reader of its own
			return got
		}
		frame := b[:n]
		vid, ok := ether.VID(frame)
		if ok && ether.Tagged(frame) {
			frame = ether.Untag(frame)
		}
		if len(frame) < 100 || frame[11] != 0x77 {
			continue
		}
		got = append(got, fmt.Sprintf("%d in %d", frame[len(frame)-1], vid))
		if len(got) == count {
			s.tap.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
	}
}

// hears tells whether a broadcast of another spy's, in a VLAN of that one's site, comes
// soon. It is none that marks would take.
func (s spy) hears(t testing.TB, of spy, vid uint16) bool {
	t.Helper()
	src := l2ext.MAC{2, 0, 0, 0, 0x78, byte(vid)}
	frame := frameTo(ether.Broadcast, src, 100)
	if vid != 0 {
		frame = ether.AppendTagged(nil, frame, vid)
	}
	_, err := of.tap.Write(frame)
	check(t, err)
	s.tap.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // more at a time would be over the limits
	for b := make([]byte, 2048); ; {
		n, err := s.tap.Read(b)
		if err != nil {
			return false
		}
		if n >= 100 && l2ext.MAC(b[6:12]) == src {
			return true
		}
	}
}

// TestVLANsOfOneBridge has two VLANs of a bridge and what has no tag stretched, each as a
// segment: a broadcast reaches the others' ports of its own segment once, and nobody else,
// and what is in no segment goes nowhere.
func TestVLANsOfOneBridge(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{}, abc, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	both := func(name string, vlanA, vlanB uint16) (l2ext.Segment, l2ext.Segment) {
		s := l2ext.Segment{Name: name, VNI: 200 + uint32(vlanA), Bridge: bridgeName, Mode: l.mode}
		atA, atB := s, s
		atA.VLAN, atB.VLAN, atA.Sites, atB.Sites = vlanA, vlanB, []string{"b"}, []string{"a"}
		return atA, atB
	}
	prod := l2ext.Segment{Name: "prod", VNI: 100, Bridge: bridgeName, Mode: l.mode}
	prodA, prodB := prod, prod
	prodA.VLAN, prodB.VLAN, prodA.Sites, prodB.Sites = 100, 250, []string{"b"}, []string{"a"}
	webA, webB := both("web", 300, 301)
	bareA, bareB := both("bare", 0, 0)
	check(t, a.m.Apply(t.Context(), []l2ext.Segment{prodA, webA, bareA}), b.m.Apply(t.Context(), []l2ext.Segment{prodB, webB, bareB}))
	var crossed atomic.Int64 // with a tag
	l.wire.Watch(func(b []byte) {
		if _, k, err := frag.Parse(b); err == nil && ether.Tagged(b[k:]) {
			crossed.Add(1)
		}
	})
	loud, ears, neighbour := l.spy(t, "a", "loud"), l.spy(t, "b", "ears"), l.spy(t, "a", "next")
	var first int // frames, until each segment has got one through: its key may come late
	for _, s := range []l2ext.Segment{prodA, webA, bareA} {
		until(t, s.Name+" carries", func() bool { first++; return ears.hears(t, loud, s.VLAN) })
	}
	for i, vid := range []uint16{100, 300, 0, 999, 250, 301} { // of no segment of a: the last three
		_, err := loud.tap.Write(marked(byte(i), vid))
		check(t, err)
	}
	for _, frame := range [][]byte{
		ether.AppendTagged(nil, marked(6, 300), 100),                                             // a tag below the tag
		append(append(bytes.Clone(marked(7, 0)[:12]), 0x88, 0xa8, 0, 100), marked(7, 0)[12:]...), // a provider's
		marked(8, 300),
	} {
		_, err := loud.tap.Write(frame)
		check(t, err)
	}
	want := []string{"0 in 250", "1 in 301", "2 in 0", "8 in 301"}
	if got := ears.marks(t, len(want)); !slices.Equal(got, want) {
		t.Errorf("site b got %q, want %q", got, want)
	}
	if got := neighbour.marks(t, 9); len(got) != 9 || slices.Contains(got, "0 in 250") {
		t.Errorf("a neighbour of the sender got %q", got)
	}
	check(t, a.m.Apply(t.Context(), []l2ext.Segment{prodA, webA, bareA})) // reads what the kernel has dropped
	until(t, "all are counted at three ports, but for the copies that were right: four, and one of each before", func() bool {
		var dropped uint64
		for _, v := range a.m.Segments() {
			dropped += v.Counts[l2ext.DropVLAN]
			if v.Counts[l2ext.DropKernel] > 0 {
				t.Fatalf("frames of other VLANs were taken for a storm on %s", v.Name)
			}
		}
		return dropped >= uint64(27-4+2*first)
	})
	if n := crossed.Load(); n > 0 && l.mode != l2ext.SecureFast {
		t.Errorf("%d frames with a tag crossed", n)
	}
}

// newVMIn is a VM whose NIC is in the VLAN of the site where it is.
func newVMIn(t testing.TB, l *lab, of vlans) *vm {
	t.Helper()
	v := newVM(t, l)
	v.vlan.Store(&of)
	return v
}

// TestVLANMove moves a VM between sites with different VLANs, under a probe from each,
// and takes it back again: what reaches the old site is sent on, and frames wait for it.
func TestVLANMove(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{Delay: 5 * time.Millisecond}, abc, "a", "b", "c")
	v := newVMIn(t, l, abc)
	for _, s := range l.sites {
		check(t, echoed(dialUDP(t, s.host, v.ip+":7"), 100))
	}
	until(t, "the VM is bound", func() bool { return l.isAt(v.mac, "a") })
	for i, way := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", "a"}} {
		listening := l.spy(t, way[1], fmt.Sprint("spy", i))
		parked := l.sites[way[1]].count(l2ext.Parked)
		l.probed(t, v, way, func() {
			l.moveWhen(t, v, fmt.Sprint("job", i), way, func() bool { return l.sites[way[1]].count(l2ext.Parked) > parked })
		}, func(role string, p probed) {
			t.Logf("%s to %s: client at the %s lost %d", way[0], way[1], role, p.lost)
		})
		until(t, "all sites agree", func() bool { return l.isAt(v.mac, way[1]) })
		for _, s := range l.sites {
			check(t, echoed(dialUDP(t, s.host, v.ip+":7"), 1472))
		}
		if vids := listening.announced(t, v.mac); !slices.Equal(vids, []uint16{abc[way[1]]}) {
			t.Errorf("the VM was announced at %s in VLANs %d, want %d", way[1], vids, abc[way[1]])
		}
	}
}

// moveWhen moves the VM, which goes on when ready tells so.
func (l *lab) moveWhen(t testing.TB, v *vm, job string, way [2]string, ready func() bool) {
	t.Helper()
	src, dst, ctx := l.sites[way[0]], l.sites[way[1]], t.Context()
	check(t, src.m.Prepare(ctx, job, v.nics(), dst.name), dst.m.Expect(ctx, job, v.nics()))
	v.put("")
	check(t, src.m.Flip(ctx, job))
	until(t, "frames wait for the VM", ready)
	v.put(dst.name)
	check(t, dst.m.Settle(ctx, job, v.nics()), dst.m.Confirm(ctx, job), src.m.Confirm(ctx, job))
}

// announced tells in which VLANs a host was announced, once it was.
func (s spy) announced(t testing.TB, mac l2ext.MAC) (vids []uint16) {
	t.Helper()
	s.tap.SetReadDeadline(time.Now().Add(l2exttest.Patience))
	for b := make([]byte, 2048); ; {
		n, err := s.tap.Read(b)
		if err != nil {
			return vids
		}
		frame := b[:n]
		vid, ok := ether.VID(frame)
		if ok && ether.Tagged(frame) {
			frame = ether.Untag(frame)
		}
		if h, err := ether.Parse(frame); err != nil || h.Type != ether.TypeRARP || h.Src != mac {
			continue
		}
		if !slices.Contains(vids, vid) {
			vids = append(vids, vid)
		}
		s.tap.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	}
}

// TestVLANSilentMove moves a VM without any job: what it says in its VLAN tells.
func TestVLANSilentMove(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{Delay: time.Millisecond}, abc, "a", "b")
	v := newVMIn(t, l, abc)
	check(t, echoed(dialUDP(t, l.sites["a"].host, v.ip+":7"), 100))
	until(t, "the VM is bound", func() bool { return l.isAt(v.mac, "a") })
	<-time.After(1100 * time.Millisecond) // younger bindings are not taken away
	v.put("b")
	go echoed(dialUDP(t, v.ns, l.sites["b"].ip+":9"), 10) // it wants something from its new LAN
	until(t, "the VM is found", func() bool { return l.isAt(v.mac, "b") })
	check(t, echoed(dialUDP(t, l.sites["a"].host, v.ip+":7"), 100))
}

// TestRouterInVLANs has one MAC in two VLANs of a bridge, as a router has it: both reach it
// from the other site, although the bridge there has one entry for it, and still do when
// it is in one of them no more.
func TestRouterInVLANs(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{}, abc, "a", "b")
	a, b := l.sites["a"], l.sites["b"]
	segments := func(sites []string, vlanA, vlanB uint16) []l2ext.Segment {
		return []l2ext.Segment{
			{Name: "prod", VNI: 100, Bridge: bridgeName, VLAN: vlanA, Sites: sites, Mode: l.mode},
			{Name: "web", VNI: 101, Bridge: bridgeName, VLAN: vlanB, Sites: sites, Mode: l.mode},
		}
	}
	check(t, a.m.Apply(t.Context(), segments([]string{"b"}, 100, 300)), b.m.Apply(t.Context(), segments([]string{"a"}, 250, 350)))
	router, guest := l.spy(t, "a", "router"), l.spy(t, "b", "guest")
	mac, ip := l2ext.MAC{2, 0, 0, 0, 1, 1}, netip.MustParseAddr("10.77.0.101")
	known := func(segment string) bool {
		for _, v := range b.m.Segments() {
			for _, have := range v.Bindings {
				if v.Name == segment && have.MAC == mac && have.Site == "a" {
					return true
				}
			}
		}
		return false
	}
	for _, vid := range []uint16{100, 300} {
		_, err := router.tap.Write(ether.AppendTagged(nil, ether.AppendAnnounce(nil, mac, ip), vid))
		check(t, err)
	}
	until(t, "the router is known in both", func() bool { return known("prod") && known("web") })
	reaches := func(from, to uint16) {
		t.Helper()
		frame := frameTo(mac, l2ext.MAC{2, 0, 0, 0, 1, 2}, 100)
		frame[20] = byte(from)
		until(t, fmt.Sprintf("a frame of VLAN %d gets through in %d", from, to), func() bool {
			_, err := guest.tap.Write(ether.AppendTagged(nil, frame, from))
			check(t, err)
			router.tap.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			for b := make([]byte, 2048); ; {
				n, err := router.tap.Read(b)
				if err != nil {
					return false
				}
				vid, _ := ether.VID(b[:n])
				if n == 104 && b[24] == byte(from) {
					if vid != to {
						t.Errorf("it came in VLAN %d", vid)
					}
					return true
				}
			}
		})
	}
	reaches(250, 100)
	reaches(350, 300)
	check(t, a.m.Leave(t.Context(), "web")) // it is in the bridge for that one, as it was known there last
	until(t, "it has left", func() bool { return !known("web") })
	reaches(250, 100)
}

// TestVLANLeavesNothing: when the gateways have gone, nothing of theirs is left.
func TestVLANLeavesNothing(t *testing.T) {
	l := newVLANLab(t, l2exttest.Line{}, abc, "a", "b")
	echoUDP(t, l.sites["b"].host, ":7")
	check(t, echoed(dialUDP(t, l.sites["a"].host, "10.77.0.2:7"), 100))
	l.end()
	for name, s := range l.sites {
		check(t, hostnet.CleanupIn(t.Context(), hostnet.Config{NetNS: s.gw.FD()}))
		left, err := s.gw.Dump()
		check(t, err)
		for _, mine := range []string{"lhvx", "lhtun", "longhaul"} {
			if strings.Contains(left, mine) {
				t.Errorf("site %s has %s left:\n%s", name, mine, left)
			}
		}
	}
}

// transfer sends bytes by TCP from the host of a site to that of another.
func transfer(from, to *site, sent []byte) (got []byte, err error) {
	var ln net.Listener
	if err := to.host.Do(func() (err error) { ln, err = net.Listen("tcp", to.ip+":0"); return err }); err != nil {
		return nil, err
	}
	defer ln.Close()
	sending := make(chan error, 1)
	go func() {
		var c net.Conn
		err := from.host.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", ln.Addr().String(), l2exttest.Patience)
			return err
		})
		if err == nil {
			_, err = c.Write(sent)
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			ln.Close() // or nobody would come
		}
		sending <- err
	}()
	c, err := ln.Accept()
	if err == nil {
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(l2exttest.Patience))
		got, err = io.ReadAll(c)
	}
	return got, errors.Join(err, <-sending)
}
