package tunnel

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestHole: large packets vanish when small pings are answered between them and none of them
// is acknowledged, time and again.
func TestHole(t *testing.T) {
	const rtt = 100 * time.Millisecond
	type step struct {
		at      int // in watchEvery
		left    int64
		passed  bool // a large packet has been acknowledged
		answers bool // from now on pings are answered after rtt
		silent  bool // and from now on not
	}
	for _, tt := range []struct {
		name  string
		steps []step
		want  int // when it is found, in watchEvery; 0: not
	}{
		{"each ping after a round of more", []step{{at: 0, answers: true}, {at: 1, left: 4}, {at: 5, left: 2}, {at: 9, left: 2}}, 11},
		{"all the time", []step{{at: 0, answers: true}, {at: 1, left: 3}, {at: 3, left: 3}, {at: 5, left: 3}, {at: 7, left: 3}, {at: 9, left: 3}}, 11},
		{"few packets", []step{{at: 0, answers: true}, {at: 1, left: 1}, {at: 5, left: 2}, {at: 9, left: 2}, {at: 13, left: 2}}, 0},
		{"few rounds", []step{{at: 0, answers: true}, {at: 1, left: 90}, {at: 9, left: 90}}, 0},
		{"one passes", []step{{at: 0, answers: true}, {at: 1, left: 4}, {at: 5, left: 4}, {at: 8, passed: true}, {at: 9, left: 4}, {at: 15, left: 4}}, 0},
		{"outage", []step{{at: 1, left: 40}, {at: 3, left: 8}, {at: 8, left: 8}, {at: 18, left: 8}, {at: 18, answers: true}}, 0},
		{"outages", []step{
			{at: 0, silent: true}, {at: 1, left: 40}, {at: 8, left: 8}, {at: 12, answers: true}, {at: 14, silent: true},
			{at: 15, left: 8}, {at: 24, left: 8}, {at: 30, left: 8}, {at: 32, answers: true},
		}, 0},
	} {
		var h hole
		var left, epoch int64
		var answers bool
		found := 0
		answer := make(map[int]uint64)
		for i := range 40 {
			for _, s := range tt.steps {
				if s.at != i {
					continue
				}
				left, answers = left+s.left, (answers || s.answers) && !s.silent
				if s.passed {
					left, epoch = 0, epoch+1
				}
			}
			now := time.Minute + time.Duration(i)*watchEvery
			if nonce := answer[i]; nonce > 0 {
				h.answered(nonce, now)
			}
			yes, ask := h.look(now, rtt, left, epoch)
			if ask && answers {
				answer[i+1] = h.nonce
			}
			if yes && found == 0 {
				found = i
			}
		}
		if found != tt.want {
			t.Errorf("%s: found at %d, want %d", tt.name, found, tt.want)
		}
	}
}

// A trickle is a stream of messages that come now and then. It tells how long the slowest of
// them took.
func (l *lab) trickle(ctx context.Context, from, to *Channel, every time.Duration, size int) *steady {
	s := &steady{from: from, to: to, last: time.Now()}
	go func() {
		for i := 0; ; i++ {
			if _, err := from.Send(ctx, bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
		}
	}()
	go func() {
		for i := 0; ; i++ {
			m, err := to.Recv(ctx)
			if err != nil {
				return
			}
			if !bytes.Equal(m.Data, bytes.Repeat([]byte{byte(i)}, size)) {
				l.t.Errorf("message %d is another one", i)
				return
			}
			to.Done(m.Seq)
			s.note(len(m.Data))
		}
	}()
	return s
}

// holeFlow is what is under way when the MTU shrinks.
type holeFlow struct {
	name  string
	class Class
	every time.Duration // between messages
	size  int
	back  bool // from the end that listens
}

var holeFlows = []holeFlow{
	{"bulk", Bulk, 0, 50_000, false},
	{"bulk back", Bulk, 0, 50_000, true},
	{"trickle", Bulk, 100 * time.Millisecond, 2000, false},
	{"now and then", Bulk, time.Second, 5000, false},
	{"one packet", Bulk, time.Second, 1350, false},
	{"urgent", Urgent, 500 * time.Millisecond, 4000, true},
}

func (l *lab) flow(ctx context.Context, f holeFlow) *steady {
	l.t.Helper()
	from, to := l.a, l.b
	if f.back {
		from, to = to, from
	}
	ch, err := from.Link(to.cfg.Site).Open(ctx, Spec{Class: f.class})
	if err != nil {
		l.t.Fatal(err)
	}
	far, err := to.Accept(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.trickle(ctx, ch, far, f.every, f.size)
}

// TestHoleIsFound: whatever is under way goes on within seconds after the MTU has shrunk.
func TestHoleIsFound(t *testing.T) {
	t.Parallel()
	for _, f := range holeFlows {
		for _, line := range []testwan.Line{
			{Delay: 2 * time.Millisecond, Rate: 400_000},
			{Delay: 20 * time.Millisecond, Rate: 400_000, Loss: 0.01},
			{Delay: 75 * time.Millisecond, Rate: 400_000, Loss: 0.05},
		} {
			t.Run(fmt.Sprint(f.name, ", ", 2*line.Delay, ", ", line.Loss), func(t *testing.T) {
				if line.Delay != 20*time.Millisecond {
					slow(t)
				}
				inLab(t, line, options{}, func(t *testing.T, l *lab) {
					l.up()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					s := l.flow(ctx, f)
					time.Sleep(5 * time.Second)
					line.MTU = 1280 - headers4
					l.wan.Set(line)
					_, gap := s.take(25 * time.Second)
					t.Logf("nothing came for %v", gap)
					if most := max(f.every, 0) + 5*time.Second; gap > most {
						t.Errorf("nothing came for %v, want at most %v", gap, most)
					}
				})
			})
		}
	}
}

// A diary is what gateways have said.
type diary struct {
	mu  sync.Mutex // guards what follows
	got strings.Builder
}

func (d *diary) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.got.Write(b)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.got.String()
}

// TestNoHole: neither a line that loses much, nor one that is away for moments, nor one whose
// MTU is small from the beginning is taken for one whose MTU has shrunk.
func TestNoHole(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]testwan.Line{
		"small": {Delay: 20 * time.Millisecond, Rate: 200_000, MTU: 1400 - headers4},
		"lossy": {Delay: 50 * time.Millisecond, Rate: 200_000, Loss: 0.05},
		"near":  {Delay: time.Millisecond, Rate: 200_000, Loss: 0.02},
		"short": {Delay: 20 * time.Millisecond, Rate: 125_000, Queue: 6000}, // a queue of four packets
		"thin":  {Delay: 20 * time.Millisecond, Rate: 20_000, Queue: 24_000},
	} {
		for _, f := range holeFlows {
			t.Run(name+", "+f.name, func(t *testing.T) {
				if name != "lossy" {
					slow(t)
				}
				var said diary
				tell := func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&said, nil)) }
				inLab(t, line, options{a: tell, b: tell}, func(t *testing.T, l *lab) {
					l.up()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					l.flow(ctx, f)
					time.Sleep(20 * time.Second)
					rng := rand.New(rand.NewPCG(*seed, 11))
					for i := range 12 {
						away, well := time.Duration(100+100*i)*time.Millisecond, 4*time.Second // less than kills the path
						if i%2 == 1 {
							away, well = time.Duration(rng.Int64N(3e8)), time.Duration(rng.Int64N(3e8))
						}
						l.wan.Cut()
						time.Sleep(away)
						l.wan.Heal()
						time.Sleep(well)
					}
				})
				if s := said.String(); strings.Contains(s, "large packets are not answered") {
					t.Error(s)
				}
			})
		}
	}
}
