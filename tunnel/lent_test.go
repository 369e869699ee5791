package tunnel

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// lend forwards packets as another gateway of a site may: what comes to addr goes
// on to the owner of the link from an address of the lender, and back (as nftables'
// dnat and masquerade do). It ends with the WAN.
func (l *lab) lend(site, port, to string) {
	l.t.Helper()
	s := l.wan.Site(site)
	outside, err := s.Listen(port)
	if err != nil {
		l.t.Fatal(err)
	}
	go func() {
		var mu sync.Mutex // guards flows
		flows := make(map[string]net.PacketConn)
		buf := make([]byte, 2000)
		for {
			n, from, err := outside.ReadFrom(buf)
			if err != nil {
				return
			}
			mu.Lock()
			inside := flows[from.String()]
			mu.Unlock()
			next, _ := net.ResolveUDPAddr("udp", to)
			if inside == nil {
				if inside, _, err = s.Dial(context.Background(), "", to); err != nil {
					return
				}
				mu.Lock()
				flows[from.String()] = inside
				mu.Unlock()
				go func() {
					buf := make([]byte, 2000)
					for {
						n, _, err := inside.ReadFrom(buf)
						if err != nil {
							return
						}
						_, _ = outside.WriteTo(buf[:n], from)
					}
				}()
			}
			_, _ = inside.WriteTo(buf[:n], next)
		}
	}()
}

// TestLentUplink: another gateway of the peer's site forwards packets to the one
// that has the link, and so is one more path, which lives on when the other dies.
func TestLentUplink(t *testing.T) {
	t.Parallel()
	const lender = "192.0.2.3"
	inLab(t, wide, options{}, func(t *testing.T, l *lab) {
		l.line(lender, narrow) // between the lender and b: they are neighbours, but count it anyway
		l.lend(lender, ":7450", ipB+":7447")
		l.setPaths([]Path{
			{Name: "own", Addrs: []string{ipB + ":7447"}, Rate: 870_000},
			{Name: "lent", Addrs: []string{lender + ":7450"}, Rate: 290_000},
		})
		l.up()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.stream(ctx, nil)
		time.Sleep(3 * time.Second)
		if rate, _ := s.take(5 * time.Second); rate < 0.85*1_160_000/startFactor {
			t.Errorf("%.0f bytes a second over both", rate)
		}
		if n := conns(l.a, "b"); n["own"] == 0 || n["lent"] == 0 {
			t.Errorf("connections %v", n)
		}
		l.line(ipA, away)
		_, gap := s.take(10 * time.Second)
		if rate, _ := s.take(5 * time.Second); rate < 0.8*290_000/startFactor || gap > 4*time.Second {
			t.Errorf("%.0f bytes a second over what is lent, after a gap of %v", rate, gap)
		}
	})
}
