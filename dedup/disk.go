package dedup

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/store"
)

// A writer brings segments to disk, and removes them, behind the backs of those
// who fill them. It is one goroutine.
type writer struct {
	log   *slog.Logger
	queue chan saving   // 4 segments of 1 MiB: what a disk may be behind
	wake  chan struct{} // capacity 1: look into gone
	stop  chan struct{}
	ended sync.WaitGroup

	full atomic.Bool // the last segment could not be written

	mu   sync.Mutex // guards what follows
	gone []removal  // at most the segments of both windows
}

// saver is the disk's end of one shelf.
type saver struct {
	disk *store.Shelf
	w    *writer
	view bool // the disk is only read: what is new stays in memory
}

// saving is a segment to be written, which is pinned; or somebody who waits until
// all before it is.
type saving struct {
	g    *segment
	sh   *shelf
	done chan struct{}
}

// removal is the file of a segment that is gone.
type removal struct {
	disk *store.Shelf
	id   uint64
}

const queued = 4

func newWriter(log *slog.Logger) *writer {
	w := &writer{log: log, queue: make(chan saving, queued), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	w.ended.Go(w.run)
	return w
}

// close writes what is queued and waits for the end.
func (w *writer) close() {
	close(w.stop)
	w.ended.Wait()
}

func (w *writer) run() {
	for {
		select {
		case s := <-w.queue:
			w.write(s)
		case <-w.wake:
			w.removeGone()
		case <-w.stop:
			for {
				select {
				case s := <-w.queue:
					w.write(s)
				default:
					w.removeGone()
					return
				}
			}
		}
	}
}

// write saves a segment. One that cannot be written stays in memory until its
// memory is needed, and is then lost: that costs bandwidth.
func (w *writer) write(s saving) {
	if s.done != nil {
		close(s.done)
		return
	}
	g := s.g
	defer func() {
		g.idle.Store(true)
		g.unpin(s.sh.memory)
		s.sh.memory.trim()
	}()
	n := g.written.Load()
	m := g.mem.Load()
	if n == 0 || m == nil {
		return
	}
	h := g.header(n)
	err := s.sh.disk.disk.Put(*h, m[:len(h.Sums)*store.PageSize])
	if failed := err != nil; w.full.Swap(failed) != failed {
		if failed {
			w.log.Warn("content store does not take segments; what it does not keep crosses again", "err", err)
		} else {
			w.log.Info("content store takes segments again")
		}
	}
	if err != nil {
		return
	}
	g.saved.Store(n)
	if s.sh.at(g.id) != g { // it has gone meanwhile; its removal may have been before
		w.remove(s.sh.disk.disk, g.id)
	}
}

func (w *writer) remove(disk *store.Shelf, id uint64) {
	if err := disk.Remove(id); err != nil {
		w.log.Debug("content store", "err", err)
	}
}

func (w *writer) removeGone() {
	w.mu.Lock()
	gone := w.gone
	w.gone = nil
	w.mu.Unlock()
	for _, r := range gone {
		w.remove(r.disk, r.id)
	}
}

// remove has the file of segment id removed.
func (d *saver) remove(id uint64) {
	if d.view {
		return
	}
	d.w.mu.Lock()
	d.w.gone = append(d.w.gone, removal{d.disk, id})
	d.w.mu.Unlock()
	select {
	case d.w.wake <- struct{}{}:
	default:
	}
}

// save brings a segment that is not filled any more to disk. The caller has it
// pinned, and waits while the disk is too far behind.
func (sh *shelf) save(g *segment) {
	if sh.disk == nil || sh.disk.view || g.queued.Swap(true) || !g.pin(false) {
		return
	}
	select {
	case <-sh.disk.w.stop: // nobody writes any more; its memory is free to go
		g.idle.Store(true)
		g.unpin(sh.memory)
		return
	default:
	}
	select {
	case sh.disk.w.queue <- saving{g: g, sh: sh}:
	case <-sh.disk.w.stop:
		g.idle.Store(true)
		g.unpin(sh.memory)
	}
}

// Flush waits until what has been handed to the disk is there.
func (s *Store) Flush() {
	if s.writer == nil {
		return
	}
	done := make(chan struct{})
	select {
	case s.writer.queue <- saving{done: done}:
	case <-s.writer.stop:
		return
	}
	select {
	case <-done:
	case <-s.writer.stop:
		s.writer.ended.Wait()
	}
}

// files is where the segments of the shelf are on disk, or nil.
func (sh *shelf) files() *store.Shelf {
	if sh.disk == nil {
		return nil
	}
	return sh.disk.disk
}

// fetch brings a pinned segment into memory, if the budget allows: who reads one
// page of it is likely to read the next.
func (sh *shelf) fetch(g *segment) {
	if g.mem.Load() != nil || sh.disk == nil || g.lost.Load() {
		return
	}
	g.load.Lock()
	defer g.load.Unlock()
	saved := g.saved.Load()
	if g.mem.Load() != nil || saved == 0 {
		return
	}
	s := sh.memory.try()
	if s == nil {
		return
	}
	if err := sh.disk.disk.Load(g.header(saved), s[:]); err != nil {
		sh.disk.w.log.Warn("content store", "err", err)
		g.lost.Store(true)
		sh.memory.put(s)
		return
	}
	g.idle.Store(true)
	sh.memory.loaded(g, s)
}
