package gateway_test

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// stretch is a site with the segment "prod" and one host on it.
type stretch struct {
	t    *testing.T
	host *l2exttest.Host
	node *tunnel.Node
	l2   *gateway.Layer2
	mac  l2ext.MAC
	stop func()
}

var wanIP = map[string]string{"a": "192.0.2.1", "b": "192.0.2.2"}

// newStretch makes one in a bubble.
func newStretch(t *testing.T, wan *testwan.WAN, id *pki.Identity, to, streams string) *stretch {
	t.Helper()
	s := &stretch{t: t, host: l2exttest.NewHost(), mac: l2ext.MAC{2, 0, 0, 0, 0, id.Site()[0]}}
	s.host.AddBridge("br")
	s.host.Plug("br", "lan")
	var l2 atomic.Pointer[gateway.Layer2]
	var err error
	s.node, err = tunnel.New(tunnel.Config{
		Site: id.Site(), Gateway: id.Gateway(), ServerTLS: id.ServerTLS(), ClientTLS: id.ClientTLS(),
		Listen: wanIP[id.Site()] + ":7447", Sockets: wan.Site(wanIP[id.Site()]),
		OnDatagram: func(site string, _ byte, b []byte) {
			if l := l2.Load(); l != nil {
				l.HandleDatagram(site, b)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.l2, err = gateway.NewLayer2(gateway.Layer2Config{Site: id.Site(), Node: s.node, Host: s.host}); err != nil {
		t.Fatal(err)
	}
	l2.Store(s.l2)
	if err := s.node.SetPeers([]tunnel.Peer{{Site: to, Addrs: []string{wanIP[to] + ":7447"}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.node.Run(ctx) })
	wg.Go(func() { _ = s.l2.Run(ctx) })
	wg.Go(func() { s.channels(ctx, &wg) })
	wg.Go(func() { s.conns(ctx, &wg) })
	wg.Go(func() { s.watch(ctx, to) })
	s.stop = func() { cancel(); wg.Wait() }
	_, err = s.l2.AddSegment(ctx, gateway.Segment{Name: "prod", VNI: 100, Bridge: "br", Sites: []string{to}, Policy: gateway.SegmentPolicy{Streams: streams}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// channels takes announcements.
func (s *stretch) channels(ctx context.Context, wg *sync.WaitGroup) {
	for {
		ch, err := s.node.Accept(ctx)
		if err != nil {
			return
		}
		wg.Go(func() { s.l2.Serve(ctx, ch) })
	}
}

func (s *stretch) conns(ctx context.Context, wg *sync.WaitGroup) {
	for {
		conn, err := s.node.AcceptConn(ctx)
		if err != nil {
			return
		}
		wg.Go(func() { s.l2.ServeFrames(ctx, conn) })
	}
}

func (s *stretch) watch(ctx context.Context, to string) {
	for was := false; ; {
		st, changed := s.node.Link(to).Watch()
		if st.Up != was {
			was = st.Up
			s.l2.LinkChanged(to, was)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// say has the host send a numbered frame of TCP, or of UDP.
func (s *stretch) say(to *stretch, proto byte, number uint32) {
	s.t.Helper()
	f := append(append([]byte(nil), to.mac[:]...), s.mac[:]...)
	f = append(f, 0x08, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, s.mac[5], 10, 0, 0, to.mac[5])
	f = append(f, 0x03, 0xe8, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0)
	f = binary.BigEndian.AppendUint32(f, uint32(time.Now().Unix()))
	if err := s.host.Send("lan", binary.BigEndian.AppendUint32(f, number)); err != nil {
		s.t.Fatal(err)
	}
}

// A heardFrame is what has come of say.
type heardFrame struct {
	proto  byte
	number uint32
	age    time.Duration // to within a second
}

func (s *stretch) heard() (all []heardFrame) {
	for f := s.host.Receive("lan"); f != nil; f = s.host.Receive("lan") {
		if h, err := ether.Parse(f); err == nil && h.Type == ether.TypeIPv4 {
			at := time.Unix(int64(binary.BigEndian.Uint32(f[len(f)-8:])), 0)
			all = append(all, heardFrame{f[h.Payload+9], binary.BigEndian.Uint32(f[len(f)-4:]), time.Since(at)})
		}
	}
	return all
}

func (s *stretch) segment() gateway.Segment {
	seg, err := s.l2.Segment(context.Background(), "prod")
	if err != nil {
		s.t.Fatal(err)
	}
	return seg
}

// stretched runs f in a bubble with two sites whose hosts know each other.
func stretched(t *testing.T, line testwan.Line, streams string, f func(t *testing.T, wan *testwan.WAN, a, b *stretch)) {
	idA, idB := identities(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(idA.Expires()) - time.Hour) // a bubble begins in 2000
		wan := testwan.New(line, 1)
		defer wan.Close()
		a, b := newStretch(t, wan, idA, "b", streams), newStretch(t, wan, idB, "a", streams)
		defer a.stop()
		defer b.stop()
		time.Sleep(5 * time.Second)
		for _, s := range []*stretch{a, b} {
			if err := s.host.Send("lan", ether.AppendAnnounce(nil, s.mac, netip.AddrFrom4([4]byte{10, 0, 0, s.mac[5]}))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Second) // a digest tells what was lost
		a.heard()
		b.heard()
		f(t, wan, a, b)
	})
}

const tcpProto, udpProto = 6, 17

// TestStreamsFollowTheLine: TCP over a line that begins to lose packets goes by
// streams soon, and then nothing of it is lost; never is it overtaken by its own.
// All else stays in datagrams. When the line is well again, and the connection
// silent for a moment, it goes back.
func TestStreamsFollowTheLine(t *testing.T) {
	gateway.Slow(t)
	line := testwan.Line{Delay: 20 * time.Millisecond}
	stretched(t, line, "", func(t *testing.T, wan *testwan.WAN, a, b *stretch) {
		var tcp, udp []uint32
		sent := uint32(0)
		talk := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
				sent++
				a.say(b, tcpProto, sent)
				a.say(b, udpProto, sent)
				for _, f := range b.heard() {
					if f.proto == tcpProto {
						tcp = append(tcp, f.number)
					} else {
						udp = append(udp, f.number)
					}
				}
			}
		}
		talk(2 * time.Second)
		if s := a.segment(); len(s.Streams) != 1 || s.Streams[0].On || s.Counts["streamed"] != 0 {
			t.Fatalf("on a line that loses nothing: %+v, %d by streams", s.Streams, s.Counts["streamed"])
		}
		line.Loss = 0.02
		wan.Set(line)
		talk(5 * time.Second)
		if s := a.segment(); !s.Streams[0].On || s.Streams[0].Loss < 0.005 || s.Counts["streamed"] < 1000 {
			t.Fatalf("on a line that loses 2 %%: %+v, %d by streams", s.Streams, s.Counts["streamed"])
		}
		from, streamed, udps := sent, a.segment().Counts["streamed"], len(udp)
		talk(10 * time.Second)
		time.Sleep(time.Second)
		talk(50 * time.Millisecond)
		if s := a.segment(); s.Counts["streamed"]-streamed < 10_000 || s.Counts["streamed"]-streamed > int64(sent-from)+1 {
			t.Errorf("%d frames by streams, of %d of TCP and as many of UDP", s.Counts["streamed"]-streamed, sent-from)
		}
		last, missing := uint32(0), 0
		for _, n := range tcp {
			switch {
			case n <= last:
				t.Fatalf("frame %d of TCP came after %d", n, last)
			case last > from && n != last+1:
				missing += int(n - last - 1)
			}
			last = n
		}
		if missing > 0 || last < sent-100 {
			t.Errorf("%d frames of TCP are missing; the last is %d of %d", missing, last, sent)
		}
		if n := len(udp) - udps; n > int(sent-from)*995/1000 {
			t.Errorf("%d of %d frames of UDP came: the line loses nothing", n, sent-from)
		}
	})
}

// TestStreamsOutage: what was on its way when the line went away for a minute is
// not delivered when it is back, and then all goes on.
func TestStreamsOutage(t *testing.T) {
	stretched(t, testwan.Line{Delay: 20 * time.Millisecond}, "on", func(t *testing.T, wan *testwan.WAN, a, b *stretch) {
		talk := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				a.say(b, tcpProto, 1)
			}
		}
		talk(time.Second)
		time.Sleep(time.Second)
		if n := len(b.heard()); n < 150 || a.segment().Counts["streamed"] < 150 {
			t.Fatalf("%d frames came, %d by streams", n, a.segment().Counts["streamed"])
		}
		wan.Cut()
		talk(time.Minute)
		wan.Heal()
		time.Sleep(10 * time.Second)
		for _, f := range b.heard() {
			t.Errorf("a frame of %v before was delivered after the outage", f.age)
		}
		streamed := a.segment().Counts["streamed"]
		talk(time.Second)
		time.Sleep(time.Second)
		if n := len(b.heard()); n < 150 || a.segment().Counts["streamed"]-streamed < 150 {
			t.Errorf("after the outage %d frames came, %d by streams", n, a.segment().Counts["streamed"]-streamed)
		}
	})
}

// TestUnstretchUnheard: while the other site cannot be reached a segment does not end for want of hosts that depend
// on it, unless it is forced.
func TestUnstretchUnheard(t *testing.T) {
	stretched(t, testwan.Line{Delay: 20 * time.Millisecond}, "off", func(t *testing.T, wan *testwan.WAN, a, b *stretch) {
		wan.Cut()
		time.Sleep(time.Minute)
		got, err := a.l2.UnstretchSegment(t.Context(), "prod", gateway.UnstretchRequest{})
		if err != nil || got.Cut || !slices.Equal(got.Unheard, []string{"b"}) {
			t.Errorf("while b is away: %+v, %v", got, err)
		}
		if got, err = b.l2.UnstretchSegment(t.Context(), "prod", gateway.UnstretchRequest{Force: true}); err != nil || !got.Cut {
			t.Errorf("forced, at b: %+v, %v", got, err)
		}
		wan.Heal()
		time.Sleep(2 * time.Minute) // b has no such segment any more
		got, err = a.l2.UnstretchSegment(t.Context(), "prod", gateway.UnstretchRequest{})
		if err != nil || len(got.Unheard) > 0 {
			t.Errorf("when b is back: %+v, %v", got, err)
		}
	})
}
