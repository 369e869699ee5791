package dedup

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Elsewhere finds pages that this site has but not in common with the peer: of
// its own images, or of other sites. It calls is with each page of a fingerprint
// until is returns true, and tells whether it has. is may not keep the page.
type Elsewhere func(fingerprint uint64, is func(p []byte) bool) bool

// elsewhere sends a page of fingerprint h as a claim, if the peer has said that it
// has such a page. room has found its slot: from now on both hold it in common.
func (e *Encoder) elsewhere(h uint64, at *handle, it page.Item) bool {
	s := e.store
	if !s.hints.has(s.key.hint(h)) {
		return false
	}
	e.batch.Stats.Claims++
	e.course.missed()
	e.emit(record.Op{Kind: record.Elsewhere}, it)
	e.batch.bufs.opaque = s.key.claim(h, it.Data).Append(e.batch.bufs.opaque)
	v := e.keep(h, it.Data)
	setVersion(at, v)
	if e.batch.Setting.bases() > 0 { // pages like it are near
		e.bases.anchors.find(it.Data, e.batch.Setting.leastAnchor())
		s.anchors.put(&e.bases.anchors, v)
	}
	return true
}

// claimed finds a page that the peer claims we have from elsewhere. If that is
// not so, or no more, the peer is asked for it: it has the page in the slot that
// ours is about to get.
func (w *work) claimed() error {
	d := w.r.d
	c, err := record.ParseClaim(w.opaque)
	if err != nil {
		return errColumn
	}
	w.opaque = w.opaque[record.ClaimSize:]
	if !w.fits(page.Size) {
		return errTooMuch
	}
	n := len(w.out)
	w.out = slices.Grow(w.out, page.Size)[:n+page.Size]
	dst := w.out[n:]
	if find := d.store.elsewhere; find != nil && find(c.Fingerprint, func(p []byte) bool {
		if len(p) != page.Size || d.store.key.hash(p) != c.Hash {
			return false
		}
		copy(dst, p)
		return true
	}) {
		return nil
	}
	g, i := w.next()
	f := source{number: firstNumber(g.id) + uint64(i)}
	p, err := d.fetch(&f, Wanted{Count: 1, Claimed: true})
	if err != nil {
		return fmt.Errorf("%w: page %d is not here, as the peer claims: %w", ErrMismatch, f.number, err)
	}
	copy(dst, p)
	return nil
}

// Find is an Elsewhere for the stores of other peers: it looks for a page among
// all that this one holds.
func (s *Store) Find(h uint64, is func(p []byte) bool) bool {
	return s.look(h, func(f *found, sh *shelf) bool {
		var scratch [page.Size]byte
		p := f.seg.content(f.slot, sh.files(), &scratch)
		return p != nil && is(p)
	})
}

// Holds tells whether both ends are known to hold a page of fingerprint h. It
// reads no page.
func (s *Store) Holds(h uint64) bool {
	return s.look(h, func(f *found, sh *shelf) bool {
		most := f.seg.written.Load()
		if sh == s.sent {
			most = f.seg.acked.Load()
		}
		return f.slot < int(most) && !f.seg.shunned.Load() && !f.retiring && f.seg.id >= sh.distrust.Load()
	})
}

// PeerHas tells whether the peer has said that it has a page of fingerprint h
// from elsewhere.
func (s *Store) PeerHas(h uint64) bool { return s.hints.has(s.key.hint(h)) }

// look calls ok with the pages of fingerprint h, pinned, until it returns true.
func (s *Store) look(h uint64, ok func(*found, *shelf) bool) bool {
	first, second := s.index.candidates(h)
	for _, slots := range [2][]atomic.Uint64{first, second} {
		for i := range slots {
			v := slots[i].Load()
			if v>>32 != h>>32 || v == 0 {
				continue
			}
			sh := s.sent
			if handle(v)&otherShelf != 0 {
				sh = s.received
			}
			f := found{number: sh.number(handle(v)), other: sh == s.received}
			f.slot = int(f.number % record.SegmentPages)
			f.seg = sh.at(f.number / record.SegmentPages)
			if f.seg == nil || f.slot >= int(f.seg.written.Load()) || f.seg.sums[f.slot] != h || !f.seg.pin(false) {
				continue
			}
			f.retiring = sh == s.sent && f.seg.id < sh.retire.Load()
			yes := ok(&f, sh)
			f.seg.unpin(&s.memory)
			if yes {
				return true
			}
		}
	}
	return false
}
