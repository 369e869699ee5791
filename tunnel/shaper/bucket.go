package shaper

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Bucket lets its callers wait for their turn under a rate. All methods are
// safe for concurrent use. It needs no closing: a timer runs only while
// somebody waits.
type Bucket struct {
	start time.Time    // what the core's time counts from
	rate  atomic.Int64 // the core's rate, for those who need no lock

	waiters sync.Pool // of *waiter that nobody uses

	mu     sync.Mutex // guards what follows; held for arithmetic only
	core   Core
	queues [classes][]*waiter // first come, first served
	timer  *time.Timer        // runs grant when the first in line is due
}

// waiter is one blocked Wait.
type waiter struct {
	n     int
	ready chan struct{} // capacity 1: the grant must not wait for the waiter
}

// New makes a bucket with a rate in bytes per second, 0 for no cap.
func New(rate int64) *Bucket {
	b := &Bucket{start: time.Now()}
	b.SetRate(rate)
	return b
}

// Rate is the cap in bytes per second, 0 for none.
func (b *Bucket) Rate() int64 { return b.rate.Load() }

// SetRate changes the cap at once, also for those who are waiting. 0 removes it.
func (b *Bucket) SetRate(rate int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.core.SetRate(b.now(), rate)
	b.rate.Store(b.core.Rate())
	b.grant()
}

// Quantum is the most bytes that one Wait should ask for, such as a batch of
// segments: 2 ms of the rate, but at least one full packet of 1500 bytes and at
// most 64 KiB, more than which no UDP socket takes at once. More is granted
// too, in larger steps.
func (b *Bucket) Quantum() int {
	rate := b.rate.Load()
	if rate == 0 {
		return 64 << 10
	}
	return int(min(max(rate/500, 1500), 64<<10))
}

// Wait returns when n bytes of the class may leave; they are charged then. It
// fails only with the cause of ctx, and then nothing is charged.
func (b *Bucket) Wait(ctx context.Context, class Class, n int) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if b.rate.Load() == 0 {
		return nil
	}
	w := b.enter(min(class, Urgent), n)
	if w == nil {
		return nil
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		if b.leave(w) {
			b.waiters.Put(w)
			return context.Cause(ctx)
		}
		<-w.ready // granted meanwhile, and charged
	}
	b.waiters.Put(w)
	return nil
}

// enter charges n at once, or puts a waiter in line.
func (b *Bucket) enter(class Class, n int) *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.blocked(class) && b.core.Take(b.now(), class, n) == 0 {
		return nil
	}
	w, ok := b.waiters.Get().(*waiter)
	if !ok {
		w = &waiter{ready: make(chan struct{}, 1)}
	}
	w.n = n
	b.queues[class] = append(b.queues[class], w)
	b.grant()
	return w
}

// blocked tells whether somebody of the class or a higher one is in line.
func (b *Bucket) blocked(class Class) bool {
	for _, q := range b.queues[class:] {
		if len(q) > 0 {
			return true
		}
	}
	return false
}

// leave takes w out of line; false says that it has been granted already.
func (b *Bucket) leave(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, q := range b.queues {
		if at := slices.Index(q, w); at >= 0 {
			b.queues[i] = slices.Delete(q, at, at+1)
			b.grant() // the next in line may be due at another time
			return true
		}
	}
	return false
}

// grant lets pass who may pass, highest class first, and sets the timer for
// the first who may not yet. The caller holds mu.
func (b *Bucket) grant() {
	now := b.now()
	for i := range b.queues {
		class := Urgent - Class(i)
		for len(b.queues[class]) > 0 {
			w := b.queues[class][0]
			if wait := b.core.Take(now, class, w.n); wait > 0 {
				b.arm(wait)
				return
			}
			b.queues[class] = slices.Delete(b.queues[class], 0, 1)
			w.ready <- struct{}{}
		}
	}
	if b.timer != nil {
		b.timer.Stop()
	}
}

func (b *Bucket) arm(wait time.Duration) {
	if b.timer == nil {
		b.timer = time.AfterFunc(wait, b.fire)
		return
	}
	b.timer.Reset(wait)
}

func (b *Bucket) fire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grant()
}

func (b *Bucket) now() time.Duration { return time.Since(b.start) }
