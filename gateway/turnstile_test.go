package gateway

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A rusher is a move that always has so many batches to compress: channels times
// what each has under way.
type rusher struct {
	share   share
	batches int
	takes   time.Duration // of CPU time, each
	most    int
	from    time.Duration // it has nothing to do before
	turns   []*turn
	used    time.Duration
}

// A rush runs moves through a turnstile, on cores that do nothing else. It has no
// clock but its own.
type rush struct {
	t      turnstile
	now    time.Duration
	moves  []*rusher
	under  []underway
	widest int // batches that were under way at a time
}

type underway struct {
	of   *rusher
	ends time.Duration
}

func (r *rush) until(end time.Duration) {
	for {
		r.fill()
		if len(r.under) == 0 {
			return
		}
		next := slices.MinFunc(r.under, func(a, b underway) int { return int(a.ends - b.ends) })
		if next.ends > end {
			return
		}
		r.now = next.ends
		r.under = slices.Delete(r.under, slices.Index(r.under, next), slices.Index(r.under, next)+1)
		next.of.used += next.of.takes
		r.t.leave(&next.of.share, next.of.takes)
	}
}

// fill queues what moves have to do, and begins what is let in.
func (r *rush) fill() {
	for _, m := range r.moves {
		for r.now >= m.from && m.share.busy+m.share.wait < m.batches {
			m.turns = append(m.turns, r.t.queue(&m.share, m.most))
		}
	}
	for _, m := range r.moves {
		m.turns = slices.DeleteFunc(m.turns, func(t *turn) bool {
			select {
			case <-t.in:
				r.under = append(r.under, underway{m, r.now + m.takes})
				return true
			default:
				return false
			}
		})
	}
	r.widest = max(r.widest, len(r.under))
}

// TestMovesShareTheCores: whatever moves have to do, each gets the same share of
// the cores, or what it can use if that is less.
func TestMovesShareTheCores(t *testing.T) {
	const all, ms = 1000, time.Millisecond
	for _, tt := range []struct {
		name  string
		cores int
		moves []*rusher
		want  []float64 // cores that each has in the end
	}{
		{"one alone", 2, []*rusher{{batches: 2, takes: 5 * ms, most: all}}, []float64{2}},
		{"eight channels and one", 2, []*rusher{{batches: 16, takes: 5 * ms, most: all}, {batches: 2, takes: 5 * ms, most: all}}, []float64{1, 1}},
		{"strong codec and weak", 2, []*rusher{{batches: 2, takes: 30 * ms, most: 2}, {batches: 2, takes: 1 * ms, most: all}}, []float64{1, 1}},
		{"three on one core", 1, []*rusher{{batches: 8, takes: 3 * ms, most: all}, {batches: 2, takes: 2 * ms, most: all}, {batches: 2, takes: 7 * ms, most: all}}, []float64{1. / 3, 1. / 3, 1. / 3}},
		{"one that cannot use its share", 4, []*rusher{{batches: 2, takes: 4 * ms, most: 1}, {batches: 32, takes: 4 * ms, most: all}}, []float64{1, 3}},
		{"two compressors for many batches", 8, []*rusher{{batches: 64, takes: 30 * ms, most: 2}, {batches: 64, takes: 3 * ms, most: all}}, []float64{2, 6}},
		{"one that comes late", 2, []*rusher{{batches: 4, takes: 5 * ms, most: all}, {batches: 4, takes: 5 * ms, most: all, from: 5 * time.Second}}, []float64{1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &rush{t: turnstile{cores: tt.cores}, moves: tt.moves}
			r.until(6 * time.Second)
			for _, m := range tt.moves {
				m.used = 0
			}
			const counted = 3 * time.Second
			r.until(6*time.Second + counted)
			for i, m := range tt.moves {
				if got := m.used.Seconds() / counted.Seconds(); got < tt.want[i]*0.98 || got > tt.want[i]*1.02 {
					t.Errorf("move %d has %.3f cores, want %.3f", i, got, tt.want[i])
				}
			}
			if r.widest > tt.cores {
				t.Errorf("%d batches at a time on %d cores", r.widest, tt.cores)
			}
		})
	}
}

// TestIdleMoveSavesNothingUp: a move that had nothing to do for long takes half of
// the cores when it comes back, from the first batch on, and no more.
func TestIdleMoveSavesNothingUp(t *testing.T) {
	const ms = time.Millisecond
	steady, late := &rusher{batches: 4, takes: 5 * ms, most: 9}, &rusher{batches: 4, takes: 5 * ms, most: 9, from: 10 * time.Second}
	r := &rush{t: turnstile{cores: 2}, moves: []*rusher{steady, late}}
	r.until(10 * time.Second)
	steady.used = 0
	r.until(10*time.Second + 200*ms)
	if d := steady.used - late.used; d < -15*ms || d > 15*ms {
		t.Errorf("in the first 200 ms the one that comes back had %v, the other %v", late.used, steady.used)
	}
}

func TestTurnstileIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := turnstile{cores: 1}
		var a, b share
		if err := s.enter(t.Context(), &a, 1); err != nil {
			t.Fatal(err)
		}
		gone := errors.New("the leg is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		left := make(chan error, 1) // the one result
		go func() { left <- s.enter(ctx, &b, 1) }()
		synctest.Wait()
		cancel(gone)
		if err := <-left; !errors.Is(err, gone) {
			t.Errorf("who gave up waiting: %v", err)
		}
		s.leave(&a, time.Second)
		if err := s.enter(t.Context(), &b, 1); err != nil {
			t.Fatal(err)
		}
		s.leave(&b, time.Second)
		if s.busy != 0 || a.busy+a.wait+b.busy+b.wait != 0 || len(s.waiting) > 0 {
			t.Errorf("something is left behind: %+v, %+v, %+v", &s, a, b)
		}
	})
}
