package tunnel

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// TestAnySecond holds caps of the link and of a flow against every second, at
// steps of 50 ms: while they are kept, right after a change in either
// direction, and after idleness.
func TestAnySecond(t *testing.T) {
	t.Parallel()
	const mbit = 1_000_000 / 8
	for _, tt := range []struct {
		rate int64
		flow bool
		loss float64
		long bool // only with -tunnel.long
	}{
		{1 * mbit, false, 0, false},
		{8 * mbit, false, 0.001, false},
		{33 * mbit, false, 0, true},
		{100 * mbit, false, 0, true},
		{500 * mbit, false, 0, true},
		{1 * mbit, true, 0, false},
		{6 * mbit, true, 0.01, false},
		{33 * mbit, true, 0, true},
		{100 * mbit, true, 0.001, true},
		{500 * mbit, true, 0, true},
	} {
		if tt.long && !*long {
			continue
		}
		t.Run(fmt.Sprintf("rate=%dMbit,flow=%v,loss=%v", tt.rate/mbit, tt.flow, tt.loss), func(t *testing.T) {
			line := testwan.Line{Delay: 5 * time.Millisecond, Rate: 300_000_000, Loss: tt.loss}
			inLab(t, line, options{}, func(t *testing.T, l *lab) {
				l.up()
				link := l.a.Link("b")
				flow := link.NewFlow("move")
				set, sent := link.SetRate, func() int64 { return link.State().WireSent }
				if tt.flow {
					set, sent = flow.SetRate, func() int64 { return bulkSent(link) }
				}
				from, to := l.open(Spec{Flow: flow})
				set(tt.rate)
				time.Sleep(time.Second)
				first := newSeconds(sent)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				flood(ctx, from, to, 100<<10)
				first.watch(2500 * time.Millisecond)
				first.check(t, "from idle", tt.rate)
				for _, rate := range []int64{2 * tt.rate, tt.rate} {
					set(rate)
					s := newSeconds(sent)
					s.watch(1500 * time.Millisecond)
					s.check(t, "changed", rate)
				}
			})
		})
	}
}

// bulkSent is what bulk has used on the wire, without the pings of its connections.
func bulkSent(l *Link) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wire[shaper.Bulk].sent.Load() - l.account.upkeep
}

// seconds are samples of a counter.
type seconds struct {
	sent    func() int64
	samples []int64
}

const sampleEvery = 50 * time.Millisecond

func newSeconds(sent func() int64) *seconds {
	return &seconds{sent: sent, samples: []int64{sent()}}
}

func (s *seconds) watch(d time.Duration) {
	for range d / sampleEvery {
		time.Sleep(sampleEvery)
		s.samples = append(s.samples, s.sent())
	}
}

// check fails unless any second is within 5 % of the rate.
func (s *seconds) check(t *testing.T, what string, rate int64) {
	t.Helper()
	const n = int(time.Second / sampleEvery)
	low, high := 1e9, 0.0
	for i := n; i < len(s.samples); i++ {
		x := float64(s.samples[i]-s.samples[i-n]) / float64(rate)
		low, high = min(low, x), max(high, x)
	}
	t.Logf("%s: any second from %+.1f to %+.1f %%", what, 100*(low-1), 100*(high-1))
	if low < 0.95 || high > 1.05 {
		t.Errorf("%s: any second from %+.1f to %+.1f %% of %d", what, 100*(low-1), 100*(high-1), rate)
	}
}

// TestLeastRate: with the least cap that a config may give, 128 kbit/s, a link uses each of
// its paths, stays up, and has more than half of the cap for what it carries.
func TestLeastRate(t *testing.T) {
	t.Parallel()
	const least = 128_000 / 8
	for _, via := range []Carrier{QUIC, TCP} {
		for _, paths := range [][]Path{{{Addrs: uplinks(0)[0].Addrs}}, uplinks(0)} {
			t.Run(fmt.Sprintf("%s over %d paths", via, len(paths)), func(t *testing.T) {
				capped := func(c *Config) { c.Rate, c.Carrier, c.Sockets = least, via, streamsOf(c.Sockets) }
				inLab(t, wide, options{a: capped, b: capped}, func(t *testing.T, l *lab) {
					l.setPaths(paths)
					l.up()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					s, link := l.streamOf(ctx, nil, 2000), l.a.Link("b")
					up := link.State().Since
					time.Sleep(2 * time.Minute) // handshakes take a while
					if rate, _ := s.take(2 * time.Minute); rate < least/2 {
						t.Errorf("%.0f bytes a second of %d", rate, least)
					}
					if s := link.State(); !s.Up || s.Since != up {
						t.Errorf("it does not last: %+v", s)
					}
					for name, n := range conns(l.a, "b") {
						if n == 0 {
							t.Errorf("no connection over path %q", name)
						}
					}
				})
			})
		}
	}
}
