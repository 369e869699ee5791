package tunnel

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// nsSockets are real sockets in a network namespace.
type nsSockets struct {
	udpSockets
	ns *nstest.NS
}

// Listen implements Sockets.
func (s nsSockets) Listen(addr string) (pc net.PacketConn, err error) {
	err = s.ns.Do(func() (err error) { pc, err = s.udpSockets.Listen(addr); return err })
	return pc, err
}

// Dial implements Sockets.
func (s nsSockets) Dial(ctx context.Context, from, addr string) (pc net.PacketConn, to net.Addr, err error) {
	err = s.ns.Do(func() (err error) { pc, to, err = s.udpSockets.Dial(ctx, from, addr); return err })
	return pc, to, err
}

// ListenStream implements Streams.
func (s nsSockets) ListenStream(addr string) (ln net.Listener, err error) {
	err = s.ns.Do(func() (err error) { ln, err = s.udpSockets.ListenStream(addr); return err })
	return ln, err
}

// DialStream implements Streams.
func (s nsSockets) DialStream(ctx context.Context, from, addr string) (c net.Conn, err error) {
	err = s.ns.Do(func() (err error) { c, err = s.udpSockets.DialStream(ctx, from, addr); return err })
	return c, err
}

// twoWires are two namespaces with two veth pairs between them.
type twoWires struct {
	*lab
	here, far *nstest.NS
}

// overTwoWires has a, which sends, and b reach each other over two paths by TCP. aDials says
// which of them dials.
func overTwoWires(t *testing.T, aDials bool) twoWires {
	t.Helper()
	nstest.NeedRoot(t)
	w := twoWires{here: nstest.New(t), far: nstest.New(t)}
	err := errors.Join(
		nstest.Veth(w.here, "one", w.far, "one"), nstest.Veth(w.here, "two", w.far, "two"),
		w.here.Addr("one", "10.9.1.1/24"), w.far.Addr("one", "10.9.1.2/24"),
		w.here.Addr("two", "10.9.2.1/24"), w.far.Addr("two", "10.9.2.2/24"),
	)
	for _, ns := range []*nstest.NS{w.here, w.far} {
		err = errors.Join(err, ns.Up("one"), ns.Up("two"))
	}
	if err != nil {
		t.Fatal(err)
	}
	ca, cb := config("a", nsSockets{ns: w.here}), config("b", nsSockets{ns: w.far})
	ca.Carrier, cb.Carrier = TCP, TCP
	pa, pb := Peer{Site: "b"}, Peer{Site: "a"}
	if aDials {
		pa.Paths = []Path{{Name: "one", Source: "10.9.1.1", Addrs: []string{"10.9.1.2:7447"}}, {Name: "two", Source: "10.9.2.1", Addrs: []string{"10.9.2.2:7447"}}}
	} else {
		pb.Paths = []Path{{Name: "one", Source: "10.9.1.2", Addrs: []string{"10.9.1.1:7447"}}, {Name: "two", Source: "10.9.2.2", Addrs: []string{"10.9.2.1:7447"}}}
	}
	w.lab = &lab{t: t, a: run(t, ca, pa), b: run(t, cb, pb)}
	t.Cleanup(func() { w.a.stop(); w.b.stop() })
	w.up()
	w.both()
	return w
}

// both waits until there are connections over both wires.
func (w twoWires) both() {
	w.t.Helper()
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if n := conns(w.a, "b"); n["one"] > 0 && n["two"] > 0 {
			return
		} else if time.Now().After(until) {
			w.t.Fatalf("connections %v", n)
		}
	}
}

// lose has a wire lose so many of a thousand packets each way.
func (w twoWires) lose(wire string, ofThousand int) {
	w.t.Helper()
	if err := errors.Join(w.here.Lose(wire, ofThousand), w.far.Lose(wire, ofThousand)); err != nil {
		w.t.Fatal(err)
	}
}

// TestPathDiesOverTCP: over the kernel's TCP, too, a path that dies is noticed, and what it
// carried goes on over the other one, within 3 s, whether the end that sends has dialed or
// the other. One that loses 5 % is not dead.
func TestPathDiesOverTCP(t *testing.T) {
	for name, aDials := range map[string]bool{"dialed": true, "accepted": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := overTwoWires(t, aDials)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			link := w.a.Link("b")
			link.SetRate(2_000_000)
			s := w.stream(ctx, nil)
			w.lose("one", 50)
			w.lose("two", 50)
			before := link.State()
			time.Sleep(6 * time.Second)
			if after := link.State(); !after.Up || after.Since != before.Since || after.Conns < before.Conns {
				t.Errorf("5 %% of packets are lost each way: %+v, before that %+v", after, before)
			}
			w.lose("two", 0)
			for _, wire := range []string{"one", "two"} {
				w.lose(wire, 1000)
				_, gap := s.take(6 * time.Second)
				t.Logf("without %s nothing came for %v", wire, gap)
				if gap > 3*time.Second {
					t.Errorf("without %s nothing came for %v", wire, gap)
				}
				if n := conns(w.a, "b")[wire]; n != 0 {
					t.Errorf("%d connections over %s, which is dead", n, wire)
				}
				w.lose(wire, 0)
				w.both()
			}
		})
	}
}

// TestHeardOverTCP: what the kernel heard last is one answer, however often and with whatever
// error it is told, so who has acknowledged a transfer that stops asks why, as does who waits.
func TestHeardOverTCP(t *testing.T) {
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		waiting, busy bool // busy at the first look, waiting at all
		want          bool // dead
	}{
		"waits": {true, false, true}, "took a lot": {false, true, true}, "idle": {false, false, false},
	} {
		var l life
		var asked, died bool
		const last = 10_000 * ms // when something came last
		for now := last + watchEvery; now < last+3000*ms; now += watchEvery {
			jitter := now / watchEvery % 4 * ms // the kernel's clock has steps
			l.overTCP(now, hearing{silent: now - last - jitter, waiting: tt.waiting}, tt.busy && now == last+watchEvery)
			switch l.judge(now, 50*ms, 0) {
			case ask:
				asked = true
			case dead:
				died = true
			}
		}
		if asked != tt.want || died != tt.want {
			t.Errorf("%s: asked %v, taken for dead %v, want %v", name, asked, died, tt.want)
		}
	}
	var l life
	for now := 50 * ms; now < 10_000*ms; now += watchEvery { // something comes all the time
		l.overTCP(now, hearing{silent: 20 * ms, waiting: true}, true)
		if got := l.judge(now, 50*ms, 0); got != alive {
			t.Fatalf("at %v: %v", now, got)
		}
	}
}
