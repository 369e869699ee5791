package gateway

import (
	"runtime"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
)

// work is what was done to some batches.
type work struct {
	batches          int64
	raw              int64 // bytes of stream
	fresh            int64 // bytes of pages that were new to the peer
	searched         int64 // bytes of pages for which a search has found bases
	plain            int64 // bytes that were compressed
	wire             int64 // bytes of messages
	serial, parallel time.Duration
}

func (w *work) add(o work) {
	w.batches += o.batches
	w.raw += o.raw
	w.fresh += o.fresh
	w.searched += o.searched
	w.plain += o.plain
	w.wire += o.wire
	w.serial += o.serial
	w.parallel += o.parallel
}

// less is w without what o held.
func (w work) less(o work) work {
	return work{
		w.batches - o.batches, w.raw - o.raw, w.fresh - o.fresh, w.searched - o.searched,
		w.plain - o.plain, w.wire - o.wire, w.serial - o.serial, w.parallel - o.parallel,
	}
}

// A workTable is work by the effort under which it was done.
type workTable [len(codecRungs)][len(searchRungs)]work

func (t *workTable) each(f func(effort, work)) {
	for c := range t {
		for s, w := range t[c] {
			if w.batches > 0 {
				f(effort{c, s}, w)
			}
		}
	}
}

func (t *workTable) sum() (sum work) {
	t.each(func(_ effort, w work) { sum.add(w) })
	return sum
}

// less is t without what o held.
func (t *workTable) less(o *workTable) (d workTable) {
	for c := range t {
		for s := range t[c] {
			d[c][s] = t[c][s].less(o[c][s])
		}
	}
	return d
}

// A tally is the work of all channels of a session, or of all sessions of a gateway.
type tally struct {
	mu    sync.Mutex // guards what follows
	works workTable
}

// add notes a batch that was compressed, and the CPU time that it took.
func (t *tally) add(b *dedup.Batch, serial, parallel time.Duration) {
	e, st := effortOf(b.Setting), b.Stats
	t.mu.Lock()
	defer t.mu.Unlock()
	t.works[e.codec][e.search].add(work{
		batches: 1, raw: st.Raw, fresh: page.Size * (st.Literals + st.Deltas), searched: page.Size * st.Searched,
		plain: st.Plain, wire: st.Wire, serial: serial, parallel: parallel,
	})
}

func (t *tally) table() workTable {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.works
}

// report is the table for an operator.
func (t *tally) report() (parts []CodecReport) {
	works := t.table()
	works.each(func(e effort, w work) {
		parts = append(parts, CodecReport{
			Codec: e.setting().String(), Batches: w.batches, LogicalBytes: w.raw, WireBytes: w.wire, CPU: (w.serial + w.parallel).Milliseconds(),
		})
	})
	return parts
}

// A cpuClock adds up the CPU time of work that a goroutine does in pieces. The
// goroutine keeps its thread meanwhile, so that the time is its own.
type cpuClock struct{ from, sum time.Duration }

func (c *cpuClock) start() {
	runtime.LockOSThread()
	c.from = threadTime()
}

func (c *cpuClock) stop() {
	c.sum += threadTime() - c.from
	runtime.UnlockOSThread()
}

// take returns the sum and begins anew.
func (c *cpuClock) take() time.Duration {
	sum := c.sum
	c.sum = 0
	return sum
}

// A stopwatch adds up the time that goroutines wait for something, also while
// they still do.
type stopwatch struct {
	mu      sync.Mutex // guards what follows
	waiting int
	since   time.Time
	sum     time.Duration
}

func (w *stopwatch) enter() { w.change(1) }
func (w *stopwatch) leave() { w.change(-1) }

func (w *stopwatch) change(by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	w.waiting += by
}

func (w *stopwatch) settle() {
	now := time.Now()
	w.sum += time.Duration(w.waiting) * now.Sub(w.since)
	w.since = now
}

// take returns the time since it was last asked.
func (w *stopwatch) take() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	sum := w.sum
	w.sum = 0
	return sum
}
