package hvtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// slowness is how long the hypervisors of a host take for what they do.
type slowness struct {
	mu   sync.Mutex
	most time.Duration // 0: no time at all
	rng  *rand.Rand
}

// Slow makes the hypervisors here take their time, as QEMU does, where else
// nothing takes any: for each answer, for events, which then come late and
// several at once, for winding a migration down, for loading and for ending. It
// is a random time up to most, and mostly short; seed decides. It holds for
// what begins from now on; a most of 0 ends it.
func (h *FakeHost) Slow(seed uint64, most time.Duration) {
	h.slow.mu.Lock()
	defer h.slow.mu.Unlock()
	h.slow.most, h.slow.rng = most, rand.New(rand.NewPCG(seed, 0))
}

func (h *FakeHost) isSlow() bool {
	h.slow.mu.Lock()
	defer h.slow.mu.Unlock()
	return h.slow.most > 0
}

// take is how long the next thing takes: a quarter of most on average.
func (s *slowness) take() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most <= 0 {
		return 0
	}
	x := s.rng.Float64()
	return time.Duration(x * x * x * float64(s.most))
}

// lag waits as long as something takes, unless ctx ends.
func (h *FakeHost) lag(ctx context.Context) error {
	d := h.slow.take()
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answer runs a command, which takes its time before and after the deed. The
// deed may be done though nobody waits for the answer any more.
func (h *FakeHost) answer(ctx context.Context, step Step, f func() error) error {
	if err := h.lag(ctx); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if err := f(); err != nil {
		return err
	}
	if err := h.lag(ctx); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}

// dawdle is lag in the middle of what a process does. The caller holds mu, which
// others may have meanwhile.
func (p *proc) dawdle() {
	p.mu.Unlock()
	defer p.mu.Lock()
	p.host.lag(p.ctx)
}

// deliver brings events late, and all at once that have come meanwhile.
func (h *handle) deliver() {
	defer close(h.events)
	for ev := range h.late {
		time.Sleep(h.p.host.slow.take())
		for more := true; more; {
			ev.At = time.Now()
			h.events <- ev // has room, see maxEvents
			select {
			case ev, more = <-h.late:
			default:
				more = false
			}
		}
	}
}
