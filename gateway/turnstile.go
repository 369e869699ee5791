package gateway

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A turnstile shares the cores among moves: as many batches are compressed at a
// time as there are cores, and when more wait, one of the move that has had the
// least CPU time goes first. So a move of eight channels takes no more than one of
// a single channel does. The zero value works.
type turnstile struct {
	cores int // zero means all that this process may use

	mu      sync.Mutex // guards what follows, and the shares
	busy    int        // batches under way
	waiting []*turn    // in order of arrival

	// front is the CPU time of the move that was let in last. A move that had
	// nothing to do begins there: what it did not use is not saved up.
	front time.Duration
}

// A share is what one move has had of the cores.
type share struct {
	had  time.Duration // CPU time, ahead of that in which it had nothing to do
	busy int           // batches under way
	wait int           // batches that wait
}

// turn is a batch that waits.
type turn struct {
	of   *share
	most int           // batches of its move that may be under way with it
	in   chan struct{} // closed when it is let in
}

// enter waits for a core for a batch of a move, of which no more than most may be
// under way. Who was let in calls leave.
func (t *turnstile) enter(ctx context.Context, s *share, most int) error {
	me := t.queue(s, most)
	select {
	case <-me.in:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, me); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		s.wait--
		return context.Cause(ctx)
	}
	return nil // let in meanwhile
}

func (t *turnstile) queue(s *share, most int) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.busy+s.wait == 0 {
		s.had = max(s.had, t.front)
	}
	s.wait++
	me := &turn{s, most, make(chan struct{})}
	t.waiting = append(t.waiting, me)
	t.admit()
	return me
}

// leave ends the turn of a batch that took so much CPU time.
func (t *turnstile) leave(s *share, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	s.busy--
	s.had += took
	t.admit()
}

// admit lets in as many as there is room for.
func (t *turnstile) admit() {
	for t.busy < cmp.Or(t.cores, runtime.GOMAXPROCS(0)) {
		i := t.next()
		if i < 0 {
			return
		}
		s := t.waiting[i].of
		close(t.waiting[i].in)
		t.waiting = slices.Delete(t.waiting, i, i+1)
		t.front = max(t.front, s.had)
		t.busy++
		s.busy++
		s.wait--
	}
}

// next is the place of the turn that comes next, or -1: of the move that has had
// least, and among equals of the one that has fewer under way.
func (t *turnstile) next() int {
	best := -1
	for i, w := range t.waiting {
		if w.of.busy >= w.most {
			continue
		}
		if best < 0 || w.of.before(t.waiting[best].of) {
			best = i
		}
	}
	return best
}

func (s *share) before(o *share) bool {
	if s.had != o.had {
		return s.had < o.had
	}
	return s.busy < o.busy
}
