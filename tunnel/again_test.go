package tunnel

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// lineTail has a round trip of 100 ms.
var lineTail = testwan.Line{Delay: 50 * time.Millisecond, Rate: 2_500_000}

const tailTrip = 100 * time.Millisecond

// own is how long n bytes take on a line, with a packet's worth of headers and
// what processors add in a bubble, where time stands still while they work.
func own(n int, rate int64) time.Duration {
	return time.Duration(1.1*float64(n)/float64(rate)*1e9) + 5*time.Millisecond
}

// nth loses, of the packets from a site that are no acknowledgements, those whose
// numbers, from 1, are in [first, last].
func nth(from string, first, last int) func(a, b netip.AddrPort, n int) bool {
	count := 0
	return func(a, _ netip.AddrPort, n int) bool {
		if a.Addr() != netip.MustParseAddr(from) || n < 500 {
			return false
		}
		count++
		return first <= count && count <= last
	}
}

// arrival sends a message and tells how long it took.
func (l *lab) arrival(from, to *Channel, msg []byte) time.Duration {
	l.t.Helper()
	began := time.Now()
	if _, err := from.Send(l.t.Context(), msg); err != nil {
		l.t.Fatal(err)
	}
	m, err := to.Recv(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	took := time.Since(began)
	to.Done(m.Seq)
	if !bytes.Equal(m.Data, msg) {
		l.t.Error("what came is not what was sent")
	}
	return took
}

// TestLastLoss loses each packet of a short tail in turn, alone and with those
// that follow it. On one path the rest is there within 1.5 round trips, and what
// it takes for itself.
func TestLastLoss(t *testing.T) {
	t.Parallel()
	inLab(t, lineTail, options{}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(lineTail.Rate)
		flow := link.NewFlow("move")
		from, to := l.open(Spec{Flow: flow})
		time.Sleep(time.Second)
		msg := message(7, 13_000)
		for len(msg) < 12_000 {
			msg = append(msg, msg...)
		}
		packets := len(msg)/1400 + 1
		flow.SetTail(true)
		var worst time.Duration
		for burst := 1; burst <= 3; burst += 2 {
			for k := 1; k <= packets; k++ {
				began, lose := time.Now(), nth(ipA, k, k+burst-1)
				l.wan.Lose(func(a, b netip.AddrPort, n int) bool {
					return time.Since(began) < tailTrip/5 && lose(a, b, n) // not of the copy, which comes later
				})
				took := l.arrival(from, to, msg)
				worst = max(worst, took)
				if most := tailTrip*3/2 + own(2*len(msg), lineTail.Rate); took > most {
					t.Errorf("%d of %d packets lost, from number %d on: %v, want at most %v", burst, packets, k, took, most)
				}
				l.wan.Lose(nil)
				time.Sleep(500 * time.Millisecond) // what is acknowledged late
			}
		}
		for range 20 { // until the path measures a round trip without losses and queues
			l.arrival(from, to, msg)
			time.Sleep(100 * time.Millisecond)
		}
		l.wan.Lose(nth(ipA, packets, packets+4))
		both := l.arrival(from, to, msg)
		if most := overdue(tailTrip, 0) + tailTrip/2 + own(2*len(msg), lineTail.Rate); both > most {
			t.Errorf("its last packet and those of the copy lost: %v, want at most %v", both, most)
		}
		l.wan.Lose(nil)
		time.Sleep(500 * time.Millisecond)
		t.Logf("worst of %d bytes: %v; %d bytes copied, %d came twice", len(msg), worst, flow.Copied(), l.b.Link("a").State().Twice)
		flow.SetTail(false)
		began, lose := time.Now(), nth(ipA, packets-3, packets+4) // how many there are differs by one or two
		l.wan.Lose(func(a, b netip.AddrPort, n int) bool { return time.Since(began) < tailTrip/5 && lose(a, b, n) })
		without := l.arrival(from, to, msg)
		t.Logf("a flow that is no tail, its last packets lost: %v", without)
		if without <= worst {
			t.Errorf("without copies it took %v, so this shows nothing", without)
		}
		t.Logf("its last packet and its copy lost: %v", both)
	})
}

// TestTailOfOneConnection: a connection that dies while a VM waits for what it
// carries holds it up for no longer than a lost packet.
func TestTailOfOneConnection(t *testing.T) {
	t.Parallel()
	inLab(t, lineTail, options{}, func(t *testing.T, l *lab) {
		l.up()
		l.a.Link("b").SetRate(lineTail.Rate)
		flow := l.a.Link("b").NewFlow("move")
		from, to := l.open(Spec{Flow: flow})
		time.Sleep(time.Second)
		flow.SetTail(true)
		// Whichever connection carries the message is not heard of again; nor is
		// the one that carries its first copy.
		var dead []netip.AddrPort
		l.wan.Lose(func(a, _ netip.AddrPort, n int) bool {
			if a.Addr() == netip.MustParseAddr(ipA) && n > 500 && len(dead) < 2 && !slices.Contains(dead, a) {
				dead = append(dead, a)
			}
			return slices.Contains(dead, a)
		})
		took := l.arrival(from, to, make([]byte, 900))
		t.Logf("%v with %v dead", took, dead)
		if took > tailTrip*7/4+own(4000, lineTail.Rate) {
			t.Errorf("it took %v", took)
		}
	})
}

// TestUrgentLoss: an urgent message whose packet is lost, with all that its
// connection sends, comes over another connection.
func TestUrgentLoss(t *testing.T) {
	t.Parallel()
	inLab(t, lineTail, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{Class: Urgent})
		time.Sleep(time.Second)
		if took := l.arrival(from, to, make([]byte, 200)); took > tailTrip/2+own(300, lineTail.Rate) {
			t.Errorf("without a loss: %v", took)
		}
		time.Sleep(time.Second)
		copied := l.a.Link("b").State().Copied
		l.wan.Lose(nth(ipA, 1, 1))
		took := l.arrival(from, to, make([]byte, 900))
		t.Logf("%v, copied %d", took, l.a.Link("b").State().Copied)
		// Half a round trip, 1.25 for what is overdue, and what readers gather.
		if took > tailTrip*7/4+2*gather+own(2000, lineTail.Rate) || copied != 0 {
			t.Errorf("it took %v; %d bytes had been copied without a loss", took, copied)
		}
	})
}

// TestTwoCopies: with two paths what a VM waits for goes over both. One of
// them may lose all of it.
func TestTwoCopies(t *testing.T) {
	t.Parallel()
	for _, dies := range []string{"", ipA, ipA2} {
		t.Run(fmt.Sprintf("dies=%s", dies), func(t *testing.T) {
			inTwoPaths(t, 0, func(t *testing.T, l *lab) {
				flow := l.a.Link("b").NewFlow("move")
				from, to := l.open(Spec{Flow: flow})
				time.Sleep(time.Second)
				if took := l.arrival(from, to, make([]byte, 20_000)); flow.Copied() > 0 {
					t.Errorf("%d bytes of a flow that is no tail are copied; %v", flow.Copied(), took)
				}
				flow.SetTail(true)
				time.Sleep(time.Second)
				was := l.b.Link("a").State().Twice
				l.wan.Lose(func(a, b netip.AddrPort, n int) bool { return n > 300 && a.Addr().String() == dies })
				var all int
				var sizes []int
				for i := range 5 {
					msg := message(i, 30_000)
					all += len(msg)
					sizes = append(sizes, len(msg))
					// Within the time of the slower path, and of the bytes on it.
					took := l.arrival(from, to, msg)
					if most := tailTrip + own(2*len(msg), 290_000); took > most {
						t.Errorf("message %d of %d bytes took %v, want at most %v", i, len(msg), took, most)
					}
				}
				time.Sleep(2 * time.Second)
				got := l.b.Link("a").State().Twice - was
				t.Logf("%d bytes %v: %d copied, %d came twice", all, sizes, flow.Copied(), got)
				if flow.Copied() < int64(all) {
					t.Errorf("of %d bytes %d are copied", all, flow.Copied())
				}
				if dies == "" && (got < int64(all)/2 || got > flow.Copied()) {
					t.Errorf("of %d bytes %d came twice", all, got)
				}
			})
		})
	}
}

// TestPathDiesInTail: the path dies that carries most of a tail that fills both
// lines. All of it is there, once and in order, when the other has carried what is left.
func TestPathDiesInTail(t *testing.T) {
	t.Parallel()
	for _, dies := range []string{ipA, ipA2} {
		t.Run(dies, func(t *testing.T) {
			inTwoPaths(t, 0, func(t *testing.T, l *lab) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				flow := l.a.Link("b").NewFlow("move")
				from, to := l.open(Spec{Flow: flow})
				time.Sleep(time.Second)
				flow.SetTail(true)
				const n, size = 12, 50_000
				part := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size) }
				began := time.Now()
				go func() {
					for i := range n {
						if _, err := from.Send(ctx, part(i)); err != nil {
							return
						}
					}
				}()
				time.AfterFunc(200*time.Millisecond, func() { l.line(dies, away) })
				for i := range n {
					m, err := to.Recv(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(m.Data, part(i)) {
						t.Errorf("message %d is another one", i)
					}
					to.Done(m.Seq)
				}
				took := time.Since(began)
				left := map[string]int64{ipA: 290_000, ipA2: 870_000}[dies]
				rest := n*size - int(0.2*1_160_000)
				most := 200*time.Millisecond + tailTrip*3/2 + own(rest+250_000, left)
				t.Logf("%d bytes took %v, want at most %v; copied %d", n*size, took, most, flow.Copied())
				if took > most {
					t.Errorf("%d bytes took %v, want at most %v", n*size, took, most)
				}
			})
		})
	}
}
