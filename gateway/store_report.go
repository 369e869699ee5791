package gateway

import (
	"context"
	"fmt"
	"slices"

	"github.com/longhaul-project/longhaul/dedup"
)

// StoreReport tells what the content stores hold.
func (g *Gateway) StoreReport(context.Context) (StoreReport, error) {
	r := StoreReport{Dir: g.cfg.StoreDir}
	for _, c := range g.allHeld() {
		st, agreed := c.stats()
		p := peerStore(st)
		p.Site, p.Tenant, p.Agreed = c.site, c.tenant, agreed
		r.Peers = append(r.Peers, p)
		r.Total.add(st)
	}
	r.Total = g.withImages(r.Total)
	left, err := g.leftStores()
	if err != nil {
		g.log.Warn("content stores", "err", err)
	}
	r.Left = left
	r.Images.Dirs = slices.Clone(g.cfg.SeedDirs)
	if p := g.images.pool; p != nil {
		st := p.Stats()
		r.Images = ImageStore{
			Pages: st.Pages, Segments: st.Segments, Disk: st.Bytes, Budget: st.Budget, Index: st.Memory,
			Hits: st.Hits, Evicted: st.Evicted, Damaged: st.Damaged, Dirs: r.Images.Dirs,
		}
	}
	return r, nil
}

// stats is what is held in common, or, as long as the two have not agreed on that, what of
// it lies on our disk.
func (c *common) stats() (st dedup.Stats, agreed bool) {
	if s := c.live.Load(); s != nil {
		return s.Stats(), true
	}
	if c.dir == nil {
		return st, false
	}
	st, err := dedup.Resting(c.dir)
	if err != nil {
		c.log().Warn("content store", "err", err)
	}
	return st, false
}

func peerStore(st dedup.Stats) PeerStore {
	return PeerStore{
		Pages: st.Pages(), SentPages: st.Sent, ReceivedPages: st.Received, Segments: st.Segments,
		Memory: st.Memory, MemoryBudget: st.Resident, Disk: st.Disk, Budget: st.Budget, Index: st.Index, Anchors: st.Anchors,
		Hits: st.Refs, Claims: st.Claims, Hints: st.Hints, Evicted: st.Evicted, Damaged: st.Damaged,
	}
}

// VerifyStore reads all segments that are on disk. It writes the damaged ones anew, where
// memory has them whole, and drops the others. What
// is dropped crosses again when it is needed, or is asked of the peer.
func (g *Gateway) VerifyStore(context.Context) (StoreTask, error) {
	if g.cfg.StoreDir == "" {
		return StoreTask{}, fmt.Errorf("this gateway keeps nothing on disk: %w", ErrUnavailable)
	}
	t, err := g.startTask(StoreTask{Kind: TaskVerify}, nil, g.scrub)
	if err != nil {
		return StoreTask{}, err
	}
	return t.snapshot(), nil
}

// scrubbing is one store to be read.
type scrubbing struct {
	name  string
	total int64 // bytes, if that is known
	run   func(step func(dedup.Scrubbed) bool) dedup.Scrubbed
}

// scrubbings are the stores that are on disk: those of the peers, and the pool.
func (g *Gateway) scrubbings() (all []scrubbing) {
	for _, c := range g.allHeld() {
		name := "what site " + c.site + " holds as well"
		if c.tenant != "" {
			name += " of tenant " + c.tenant
		}
		if s := c.live.Load(); s != nil {
			all = append(all, scrubbing{name, s.Stats().Disk, s.Scrub})
		} else if c.dir != nil { // the peer was not reached yet
			all = append(all, scrubbing{name, 0, func(step func(dedup.Scrubbed) bool) dedup.Scrubbed {
				return dedup.ScrubDir(c.dir, g.log, step)
			}})
		}
	}
	if p := g.images.pool; p != nil {
		all = append(all, scrubbing{"images", p.Stats().Bytes, p.Scrub})
	}
	return all
}

// scrub reads one store after the other.
func (g *Gateway) scrub(ctx context.Context, t *storeTask) error {
	var total int64
	all := g.scrubbings()
	for _, s := range all {
		total += s.total
	}
	var before dedup.Scrubbed // of the stores that are done
	for _, s := range all {
		t.update(func(v *StoreTask) { v.Phase = "reading " + s.name })
		before.Add(s.run(func(done dedup.Scrubbed) bool {
			done.Add(before)
			t.update(func(v *StoreTask) { v.scrubbed(done, total) })
			return ctx.Err() == nil
		}))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	t.update(func(v *StoreTask) { v.scrubbed(before, before.Bytes) })
	return nil
}

func (v *StoreTask) scrubbed(s dedup.Scrubbed, total int64) {
	v.Total, v.Done = max(total, s.Bytes), s.Bytes
	v.Segments, v.Damaged, v.Dropped, v.Mended = s.Segments, s.Damaged, s.Dropped, s.Mended
}
