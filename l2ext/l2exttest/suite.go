package l2exttest

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Fixture is a Host under test, with a way to be a host on its LANs.
type Fixture struct {
	Host l2ext.Host

	// AddBridge makes a bridge that is not l2ext's.
	AddBridge func(name string)
	// Plug adds a LAN port to a bridge.
	Plug func(bridge, port string)
	// Send has a host behind a LAN port send a frame.
	Send func(port string, frame []byte) error
	// Receive takes the next frame at a LAN port, or nil if none came.
	Receive func(port string) []byte
	// State tells the state as Host.String does.
	State func() string
}

// Patience bounds each wait of the suite.
const Patience = 30 * time.Second

var (
	hostA = l2ext.MAC{0x52, 0x54, 0, 0, 0, 0xa}
	hostB = l2ext.MAC{0x52, 0x54, 0, 0, 0, 0xb}
	hostC = l2ext.MAC{0x52, 0x54, 0, 0, 0, 0xc}
)

// Suite checks what every l2ext.Host promises.
func Suite(t *testing.T, fixture func(t *testing.T) Fixture) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, f Fixture)
	}{
		{"Apply", testApply}, {"Adopt", testAdopt}, {"Point", testPoint}, {"Watch", testWatch},
		{"Frames", testFrames}, {"Mute", testMute}, {"Close", testClose}, {"Port", testPort}, {"Capture", testCapture},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, fixture(t)) })
	}
}

func wish(entries ...l2ext.Entry) l2ext.Wish {
	return l2ext.Wish{Segment: l2ext.Segment{Name: "prod", VNI: 100, Bridge: "brprod", MTU: 1500, Sites: []string{"b"}}, Entries: entries}
}

// apply applies twice: the second time must change nothing.
func (f Fixture) apply(t *testing.T, wishes ...l2ext.Wish) []l2ext.Attached {
	t.Helper()
	first, err := f.Host.Apply(t.Context(), wishes)
	if err != nil {
		t.Fatal(err)
	}
	state := f.State()
	again, err := f.Host.Apply(t.Context(), wishes)
	if err != nil {
		t.Fatal(err)
	}
	if now := f.State(); now != state {
		t.Errorf("the second Apply changed\n%s\ninto\n%s", state, now)
	}
	for i := range first {
		if first[i] != again[i] || first[i].Err != nil {
			t.Errorf("segment %d attached as %+v, then %+v", i, first[i], again[i])
		}
	}
	return first
}

func (f Fixture) want(t *testing.T, lines ...string) {
	t.Helper()
	if got, want := f.State(), strings.Join(lines, "\n"); got != want {
		t.Errorf("state is\n%s\nwant\n%s", got, want)
	}
}

func testApply(t *testing.T, f Fixture) {
	other := l2ext.Wish{Segment: l2ext.Segment{Name: "test", VNI: 7, Bridge: "brtest", MTU: 1400}}
	a := f.apply(t, wish(l2ext.Entry{MAC: hostA, Site: 16}, l2ext.Entry{MAC: hostB, Site: 17}), other)
	if a[0].Adopted || a[0].Device != "lhvx100" || !a[0].Bridge.Host() {
		t.Errorf("attached: %+v", a[0])
	}
	f.want(t, "bridge brprod made", "bridge brtest made", "fdb lhvx100 52:54:00:00:00:0a site 16",
		"fdb lhvx100 52:54:00:00:00:0b site 17", "port lhvx100 on brprod mtu 1500", "port lhvx7 on brtest mtu 1400")
	f.apply(t, wish(l2ext.Entry{MAC: hostA, Site: 17}))
	f.want(t, "bridge brprod made", "fdb lhvx100 52:54:00:00:00:0a site 17", "port lhvx100 on brprod mtu 1500")
	f.apply(t)
	f.want(t, "")
}

func testAdopt(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.Plug("brprod", "lan0")
	if a := f.apply(t, wish()); !a[0].Adopted {
		t.Errorf("attached: %+v", a[0])
	}
	f.want(t, "bridge brprod adopted", "port lhvx100 on brprod mtu 1500")
	if vnis := f.Host.PortSegments("lan0"); !slices.Equal(vnis, []uint32{100}) {
		t.Errorf("lan0 is on segments %d", vnis)
	}
	if vnis := f.Host.PortSegments("none"); len(vnis) > 0 {
		t.Errorf("a port that is not is on segments %d", vnis)
	}
	f.apply(t)
	f.want(t, "bridge brprod adopted")
}

func testPoint(t *testing.T, f Fixture) {
	f.apply(t, wish())
	point := func(want string, es ...l2ext.Entry) {
		t.Helper()
		for range 2 {
			if err := f.Host.Point(100, es); err != nil {
				t.Error(err)
			}
		}
		lines := []string{"bridge brprod made", "port lhvx100 on brprod mtu 1500"}
		if want != "" {
			lines = []string{lines[0], want, lines[1]}
		}
		f.want(t, lines...)
	}
	point("fdb lhvx100 52:54:00:00:00:0a site 16", l2ext.Entry{MAC: hostA, Site: 16})
	point("fdb lhvx100 52:54:00:00:00:0a site 17", l2ext.Entry{MAC: hostA, Site: 17})
	point("fdb lhvx100 52:54:00:00:00:0b site 16", l2ext.Entry{MAC: hostA}, l2ext.Entry{MAC: hostB, Site: 16})
	point("", l2ext.Entry{MAC: hostB})
	if err := f.Host.Point(99, []l2ext.Entry{{MAC: hostA, Site: 16}}); err == nil {
		t.Error("a segment that is not was programmed")
	}
}

func testWatch(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.Plug("brprod", "lan0")
	f.apply(t, wish(l2ext.Entry{MAC: hostB, Site: 16}))
	seen := make(chan l2ext.Sighting, 100) // more than are reported
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	if err := f.Send("lan0", ether.AppendAnnounce(nil, hostA, netip.Addr{})); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- f.Host.Watch(ctx, func(s l2ext.Sighting) { seen <- s }) }()
	until := func(mac l2ext.MAC, ip netip.Addr, leased bool) {
		t.Helper()
		for deadline := time.After(Patience); ; {
			select {
			case s := <-seen:
				if s.MAC == hostB && !s.Announced {
					t.Error("a host of another site was found here")
				}
				if s.VNI == 100 && s.MAC == mac && s.IP == ip && s.Leased == leased {
					return
				}
			case <-deadline:
				t.Fatalf("%v was not reported", mac)
			}
		}
	}
	until(hostA, netip.Addr{}, false) // there before the watch
	// A host of another site that shows up here does not move by itself.
	for _, mac := range []l2ext.MAC{hostB, hostC} {
		if err := f.Send("lan0", ether.AppendAnnounce(nil, mac, netip.Addr{})); err != nil {
			t.Fatal(err)
		}
	}
	until(hostC, netip.Addr{}, false)
	// Not even the kernel's static entry hides what a RARP tells.
	f.send(t, "lan0", ether.AppendAnnounce(nil, hostB, netip.Addr{}))
	until(hostB, netip.Addr{}, false)
	// What goes from one LAN port to another is heard as well.
	f.Plug("brprod", "lan1")
	ip4, ip6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fe80::1")
	for _, ip := range []netip.Addr{ip4, ip6} {
		q := ether.Question{Target: ip, Sender: ip}
		f.send(t, "lan1", q.AppendReply(nil, ether.Replier{MAC: hostC, Asker: hostA}))
		until(hostC, ip, false)
	}
	f.send(t, "lan1", leaseFor(hostA))
	until(hostA, netip.MustParseAddr("10.0.0.77"), true)
	if ago, ok := f.Host.Heard(100, hostC); !ok || ago > Patience {
		t.Errorf("a host was heard %v ago, %t", ago, ok)
	}
	for _, mac := range []l2ext.MAC{hostB, {2, 9}} { // it is at another site; nobody knows it
		if ago, ok := f.Host.Heard(100, mac); ok {
			t.Errorf("%v was heard %v ago", mac, ago)
		}
	}
	if _, ok := f.Host.Heard(99, hostC); ok {
		t.Error("a host was heard on a segment that is not")
	}
	f.want(t, "bridge brprod adopted", "fdb lhvx100 52:54:00:00:00:0b site 16", "port lhvx100 on brprod mtu 1500")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Watch ended with %v", err)
	}
}

// leaseFor is what a DHCP server sends to give a host 10.0.0.77.
func leaseFor(mac l2ext.MAC) []byte {
	b := append(append([]byte(nil), mac[:]...), hostC[:]...)
	b = append(b, 8, 0, 0x45, 0, 1, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 77)
	b = append(b, 0, 67, 0, 68, 1, 0, 0, 0)
	d := make([]byte, 240, 256)
	d[0], d[1], d[2] = 2, 1, 6
	copy(d[16:], []byte{10, 0, 0, 77})
	copy(d[28:], mac[:])
	copy(d[236:], []byte{0x63, 0x82, 0x53, 0x63})
	return append(append(b, d...), 0, 53, 1, 5, 255)
}

// frame makes an Ethernet frame of a type for experiments.
func frame(dst, src l2ext.MAC, text string) []byte {
	b := append(append([]byte(nil), dst[:]...), src[:]...)
	b = append(append(b, 0x88, 0xb5), text...)
	return append(b, make([]byte, max(0, 60-len(b)))...) // the least that Ethernet has
}

func testFrames(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.Plug("brprod", "lan0")
	flood := wish(l2ext.Entry{MAC: hostB, Site: 16})
	flood.Policy.Unknown = l2ext.UnknownLimited
	f.apply(t, flood)
	read := make(chan vxlan.Packet, 100) // more than are sent
	go func() {
		defer close(read)
		for b := make([]byte, 1<<16); ; {
			n, err := f.Host.ReadPacket(b)
			if err != nil {
				return
			}
			if p, _, err := vxlan.Parse(bytes.Clone(b[:n])); err == nil && l2ext.MAC(p.Frame[6:12]) == hostA {
				read <- p
			}
		}
	}()
	for _, tt := range []struct {
		dst l2ext.MAC
		to  vxlan.Endpoint
	}{{ether.Broadcast, vxlan.Everyone}, {hostB, 16}, {hostC, vxlan.Everyone}} {
		sent := frame(tt.dst, hostA, "out")
		if err := f.Send("lan0", sent); err != nil {
			t.Fatal(err)
		}
		select {
		case p := <-read:
			if p.VNI != 100 || p.From != vxlan.Self || p.To != tt.to || !bytes.Equal(p.Frame, sent) {
				t.Errorf("to %v: got %+v, want it for %d", tt.dst, p, tt.to)
			}
		case <-time.After(Patience):
			t.Fatalf("the frame to %v did not reach the carrier", tt.dst)
		}
	}
	for _, dst := range []l2ext.MAC{ether.Broadcast, hostA} {
		sent := frame(dst, hostB, "in")
		if err := f.Host.WritePacket(vxlan.Packet{VNI: 100, From: 16, To: vxlan.Self, Frame: sent}.Append(nil)); err != nil {
			t.Fatal(err)
		}
		for {
			got := f.Receive("lan0")
			if got == nil {
				t.Fatalf("the frame to %v did not reach the LAN", dst)
			}
			if bytes.Equal(got, sent) {
				break
			}
			if l2ext.MAC(got[6:12]) == hostB {
				t.Fatalf("got % x", got)
			}
		}
	}
	f.want(t, "bridge brprod adopted", "fdb lhvx100 52:54:00:00:00:0b site 16", "port lhvx100 on brprod mtu 1500")
	if a := f.apply(t, flood); a[0].Delivered != 2 {
		t.Errorf("%d packets were delivered", a[0].Delivered)
	}
	f.Host.Close()
	for range read {
	}
}

// testMute keeps a broadcast from one port of two.
func testMute(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.Plug("brprod", "lan0")
	f.Plug("brprod", "lan1")
	f.apply(t, wish())
	for range 2 {
		if err := f.Host.Mute("lan0"); err != nil {
			t.Fatal(err)
		}
	}
	f.apply(t, wish())
	f.want(t, "bridge brprod adopted", "muted lan0", "port lhvx100 on brprod mtu 1500")
	if err := f.Host.Mute("none"); err == nil {
		t.Error("a port that is not was muted")
	}
	f.send(t, "lan1", frame(ether.Broadcast, hostA, "while muted"))
	f.send(t, "lan1", frame(hostB, hostA, "for one host"))
	f.receive(t, "lan0", hostA, "for one host")
	for _, port := range []string{"lan0", "lan0", "none"} {
		if err := f.Host.Unmute(port); err != nil {
			t.Errorf("unmuting %s: %v", port, err)
		}
	}
	f.send(t, "lan1", frame(ether.Broadcast, hostA, "for all"))
	f.receive(t, "lan0", hostA, "for all")
	f.want(t, "bridge brprod adopted", "port lhvx100 on brprod mtu 1500")
}

func (f Fixture) send(t *testing.T, port string, b []byte) {
	t.Helper()
	if err := f.Send(port, b); err != nil {
		t.Fatal(err)
	}
}

// receive takes frames at a port until one comes from mac, which must have the
// text.
func (f Fixture) receive(t *testing.T, port string, mac l2ext.MAC, text string) {
	t.Helper()
	for {
		b := f.Receive(port)
		if b == nil {
			t.Fatalf("%q did not come to %s", text, port)
		}
		if l2ext.MAC(b[6:12]) == mac {
			if got := strings.TrimRight(string(b[14:]), "\x00"); got != text {
				t.Errorf("%s got %q, want %q", port, got, text)
			}
			return
		}
	}
}

func testClose(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.apply(t, wish(l2ext.Entry{MAC: hostA, Site: 16}))
	if err := f.Host.Close(); err != nil {
		t.Error(err)
	}
	f.want(t, "bridge brprod adopted")
	if _, err := f.Host.ReadPacket(make([]byte, 100)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadPacket after Close: %v", err)
	}
	if _, err := f.Host.Apply(t.Context(), []l2ext.Wish{wish()}); err == nil {
		t.Error("Apply after Close did something")
	}
	f.Host.Close()
}

// testPort sends frames through the port of a segment in mode secure-fast, and
// changes the mode.
func testPort(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.Plug("brprod", "lan0")
	w := wish(l2ext.Entry{MAC: hostB, Site: 16})
	w.Mode = l2ext.SecureFast
	a := f.apply(t, w)
	if a[0].Port == nil || a[0].Device != "lhvx100" {
		t.Fatalf("attached: %+v", a[0])
	}
	sent := frame(hostB, hostA, "out")
	b := make([]byte, fast.MaxMessage)
	f.send(t, "lan0", sent)
	for { // a kernel may have said something itself
		n, err := a[0].Port.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		_, got, err := fast.SplitMessage(b[:n])
		if err != nil {
			t.Fatalf("%x: %v", b[:n], err)
		}
		if bytes.Equal(got, sent) {
			break
		}
	}
	back := frame(hostA, hostB, "in")
	if err := a[0].Port.Write(append(fast.Plain(nil), back...)); err != nil {
		t.Fatal(err)
	}
	for got := f.Receive("lan0"); !bytes.Equal(got, back); got = f.Receive("lan0") {
		if got == nil {
			t.Fatal("the frame from the port did not reach the LAN")
		}
	}
	for n, err := 1, error(nil); n > 0; n, err = a[0].Port.Next(b) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := a[0].Port.OnlyTCP(); err != nil {
		t.Error(err)
	}
	w.Mode = l2ext.Secure
	if a := f.apply(t, w); a[0].Port != nil {
		t.Errorf("attached in mode secure: %+v", a[0])
	}
	for { // what waited may still come
		if _, err := a[0].Port.Read(b); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("the port that has gone: %v", err)
			}
			break
		}
	}
}

// testCapture looks at what the kernel carries.
func testCapture(t *testing.T, f Fixture) {
	f.AddBridge("brprod")
	f.Plug("brprod", "lan0")
	w := wish(l2ext.Entry{MAC: hostB, Site: 16})
	capture := func(ctx context.Context, frame func(l2ext.Captured) error) error {
		_, err := f.Host.Capture(ctx, w.VNI, l2ext.CaptureOptions{Snap: 20}, frame)
		return err
	}
	f.apply(t, w)
	if err := capture(t.Context(), nil); err == nil {
		t.Error("the kernel's frames of a segment in mode secure were captured")
	}
	w.Mode = l2ext.Direct
	w.Direct = &l2ext.Underlay{
		Local: netip.MustParseAddr("10.78.0.1"), Self: l2ext.MAC{0x0e, 0x4c, 1},
		Sites: []l2ext.UnderlaySite{{Site: 16, Addr: netip.MustParseAddr("10.78.0.2"), MAC: l2ext.MAC{0x0e, 0x4c, 2}}},
	}
	if a, err := f.Host.Apply(t.Context(), []l2ext.Wish{w}); err != nil || a[0].Err != nil {
		t.Fatalf("mode direct: %+v, %v", a, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := make(chan l2ext.Captured, 1), make(chan error, 1)
	go func() {
		ended <- capture(ctx, func(c l2ext.Captured) error {
			select {
			case got <- c:
			default:
			}
			return nil
		})
	}()
	sent, began := frame(hostB, hostA, "out"), time.Now()
	for c := (l2ext.Captured{}); c.Frame == nil || l2ext.MAC(c.Frame[6:12]) != hostA; {
		f.send(t, "lan0", sent)
		select {
		case c = <-got:
		case <-time.After(10 * time.Millisecond):
			if time.Since(began) > Patience {
				t.Fatal("a frame for another site was not captured")
			}
			continue
		}
		if l2ext.MAC(c.Frame[6:12]) == hostA && (!bytes.Equal(c.Frame, sent[:20]) || c.Len != len(sent) || c.Inward || c.At.Before(began.Add(-time.Second))) {
			t.Errorf("captured: %+v", c)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	full := errors.New("the disk is full")
	go func() { ended <- capture(t.Context(), func(l2ext.Captured) error { return full }) }()
	for until := time.Now().Add(Patience); ; {
		f.send(t, "lan0", sent)
		select {
		case err := <-ended:
			if !errors.Is(err, full) {
				t.Errorf("ended with %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond):
			if time.Now().After(until) {
				t.Fatal("it has not ended")
			}
		}
	}
}
