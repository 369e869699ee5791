package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/longhaul-project/longhaul/dedup"
)

// StoreReport tells what the content stores hold.
func (g *Gateway) StoreReport(context.Context) (StoreReport, error) {
	r := StoreReport{Total: g.storeStatus()}
	for _, l := range g.node.Links() {
		p := PeerStore{Site: l.Site()}
		if s := g.commonWith(l.Site()).live.Load(); s != nil {
			p = peerStore(l.Site(), s.Stats())
		}
		r.Peers = append(r.Peers, p)
	}
	slices.SortFunc(r.Peers, func(a, b PeerStore) int { return strings.Compare(a.Site, b.Site) })
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

func peerStore(site string, st dedup.Stats) PeerStore {
	return PeerStore{
		Site: site, Agreed: true, Pages: st.Pages(), SentPages: st.Sent, ReceivedPages: st.Received, Segments: st.Segments,
		Memory: st.Memory, MemoryBudget: st.Resident, Disk: st.Disk, Budget: st.Budget, Index: st.Index, Anchors: st.Anchors,
		Hits: st.Refs, Claims: st.Claims, Hints: st.Hints, Evicted: st.Evicted, Damaged: st.Damaged,
	}
}

// VerifyStore reads all segments that are on disk and drops the damaged ones. What
// is dropped crosses again when it is needed, or is asked of the peer.
func (g *Gateway) VerifyStore(context.Context) (StoreTask, error) {
	if g.cfg.StoreDir == "" {
		return StoreTask{}, fmt.Errorf("this gateway keeps nothing on disk: %w", ErrUnavailable)
	}
	t, err := g.startTask(StoreTask{Kind: TaskVerify}, g.scrub)
	if err != nil {
		return StoreTask{}, err
	}
	return t.snapshot(), nil
}

// scrub reads one store after the other.
func (g *Gateway) scrub(ctx context.Context, t *storeTask) error {
	type part struct {
		name  string
		total int64
		scrub func(step func(dedup.Scrubbed) bool) dedup.Scrubbed
	}
	var parts []part
	for _, c := range g.others("") {
		if s := c.live.Load(); s != nil {
			parts = append(parts, part{"what site " + c.site + " holds as well", s.Stats().Disk, s.Scrub})
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.name, b.name) })
	if p := g.images.pool; p != nil {
		parts = append(parts, part{"images", p.Stats().Bytes, p.Scrub})
	}
	var total int64
	for _, p := range parts {
		total += p.total
	}
	var before dedup.Scrubbed // of the parts that are done
	show := func(s dedup.Scrubbed) {
		s.Add(before)
		t.update(func(v *StoreTask) {
			v.Total, v.Done = max(total, s.Bytes), s.Bytes
			v.Segments, v.Damaged, v.Dropped = s.Segments, s.Damaged, s.Dropped
		})
	}
	for _, p := range parts {
		t.update(func(v *StoreTask) { v.Phase = "reading " + p.name })
		before.Add(p.scrub(func(s dedup.Scrubbed) bool {
			show(s)
			return ctx.Err() == nil
		}))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	show(dedup.Scrubbed{})
	if total > 0 {
		t.update(func(v *StoreTask) { v.Total = v.Done })
	}
	return nil
}
