package dedup

import (
	"errors"
	"io/fs"
	"log/slog"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Scrubbed is what a scrub has done so far.
type Scrubbed struct {
	Segments int64 // read
	Bytes    int64 // of pages read
	Total    int64 // bytes of pages to read, about
	Damaged  int64 // pages that are not what was written
	Dropped  int64 // segments that were dropped for it
	Mended   int64 // segments that were written anew instead, since memory had them whole
}

// Add adds o to s.
func (s *Scrubbed) Add(o Scrubbed) {
	s.Segments += o.Segments
	s.Bytes += o.Bytes
	s.Total += o.Total
	s.Damaged += o.Damaged
	s.Dropped += o.Dropped
	s.Mended += o.Mended
}

// Scrub reads all segments that are on disk. Those of which a page is not what was
// written are written anew if they are whole in memory, or else dropped: nothing refers to
// them from then on; what the peer still refers to, it is asked for. It calls step after each segment, until that
// returns false.
func (s *Store) Scrub(step func(Scrubbed) bool) Scrubbed {
	s.Flush()
	done := Scrubbed{Total: s.Stats().Disk}
	mem := new(slab)
	for _, sh := range []*shelf{s.sent, s.received} {
		if sh.disk == nil {
			continue
		}
		sh.mu.Lock()
		from, to := sh.free, sh.next
		sh.mu.Unlock()
		for id := from; id < to; id++ {
			g := sh.at(id)
			if g == nil || g.saved.Load() == 0 || !g.pin(false) {
				continue
			}
			s.scrub(sh, g, mem, &done)
			g.unpin(&s.memory)
			if !step(done) {
				return done
			}
		}
	}
	return done
}

// scrub reads a pinned segment.
func (s *Store) scrub(sh *shelf, g *segment, mem *slab, done *Scrubbed) {
	h := g.header(g.saved.Load())
	done.Segments++
	done.Bytes += int64(len(h.Sums)) * page.Size
	bad, err := sh.disk.disk.Verify(h, mem[:])
	if err == nil && len(bad) == 0 {
		return
	}
	if err != nil && sh.at(g.id) != g { // it has gone meanwhile
		return
	}
	damaged := int64(len(bad))
	if err != nil {
		damaged = int64(len(h.Sums))
	}
	done.Damaged += damaged
	if sh.mend(g, h) {
		done.Mended++
		sh.disk.w.log.Warn("content store: a segment is damaged and was written anew from memory", "segment", g.id, "pages", damaged, "err", err)
		return
	}
	done.Dropped++
	s.damaged.Add(damaged)
	g.shunned.Store(true)
	g.saved.Store(0)
	sh.disk.remove(g.id)
	sh.disk.w.log.Warn("content store: a segment is damaged and was dropped", "segment", g.id, "pages", damaged, "err", err)
}

// mend writes a pinned segment anew from memory; false if it is not whole there, or cannot
// be written.
func (sh *shelf) mend(g *segment, h *store.Header) bool {
	mem := g.mem.Load()
	if mem == nil {
		return false
	}
	for i, sum := range h.Sums {
		if fingerprint(mem[i*page.Size:(i+1)*page.Size]) != sum {
			return false
		}
	}
	if sh.disk.disk.Put(*h, mem[:len(h.Sums)*page.Size]) != nil {
		return false
	}
	if sh.at(g.id) != g { // it has gone meanwhile; its removal may have been before
		sh.disk.remove(g.id)
	}
	return true
}

// ScrubDir is Store.Scrub for what is on disk in common with a peer that was not
// heard of yet, so that there is no Store.
func ScrubDir(dir *store.Dir, log *slog.Logger, step func(Scrubbed) bool) (done Scrubbed) {
	mem := new(slab)
	for _, name := range []string{sentShelf, receivedShelf} {
		shelf := dir.Shelf(name)
		all, removed, err := shelf.List()
		if err != nil {
			log.Warn("content store: a shelf cannot be read", "shelf", name, "err", err)
			continue
		}
		done.Damaged += int64(removed) // a page each, at least
		done.Dropped += int64(removed)
		for i := range all {
			done.Total += int64(len(all[i].Sums)) * page.Size
		}
		for i := range all {
			h := &all[i]
			bad, err := shelf.Verify(h, mem[:])
			done.Segments++
			done.Bytes += int64(len(h.Sums)) * page.Size
			if errors.Is(err, fs.ErrNotExist) {
				continue // it has gone meanwhile
			}
			if err != nil {
				bad = make([]int, len(h.Sums))
			}
			if len(bad) > 0 {
				done.Damaged += int64(len(bad))
				done.Dropped++
				log.Warn("content store: a segment is damaged and is dropped", "segment", h.ID, "pages", len(bad), "err", errors.Join(err, shelf.Remove(h.ID)))
			}
			if !step(done) {
				return done
			}
		}
	}
	return done
}

// Scrub is Store.Scrub for the pool.
func (p *Pool) Scrub(step func(Scrubbed) bool) Scrubbed {
	done := Scrubbed{Total: p.Stats().Bytes}
	mem := new(slab)
	for _, id := range p.Segments() {
		h := p.header(id)
		if h == nil {
			continue
		}
		bad, err := p.disk.Verify(h, mem[:])
		done.Segments++
		done.Bytes += int64(len(h.Sums)) * page.Size
		if err != nil {
			bad = make([]int, len(h.Sums))
		}
		if len(bad) > 0 && p.remove(id) {
			done.Damaged += int64(len(bad))
			done.Dropped++
			p.damaged.Add(int64(len(bad)))
			p.log.Warn("pool of images: a segment is damaged and was dropped; seed its image again", "segment", id, "pages", len(bad), "err", err)
		}
		if !step(done) {
			break
		}
	}
	return done
}

// remove drops a segment, if it is there.
func (p *Pool) remove(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.segments[id] == nil {
		return false
	}
	p.drop(id)
	return true
}

// Contents calls tell with the fingerprints of each segment that can be read, and
// a name for it that is its own, until tell returns false: what Find finds.
func (s *Store) Contents(tell func(name uint64, sums []uint64) bool) {
	for i, sh := range []*shelf{s.sent, s.received} {
		sh.mu.Lock()
		from, to := sh.free, sh.next
		sh.mu.Unlock()
		for id := from; id < to; id++ {
			g := sh.at(id)
			if g == nil || g.written.Load() < record.SegmentPages && !g.idle.Load() || g.shunned.Load() || g.lost.Load() {
				continue
			}
			if !tell(id<<1|uint64(i), g.sums[:g.written.Load()]) {
				return
			}
		}
	}
}
