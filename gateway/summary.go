package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/tunnel"
)

// Each gateway asks its peers from time to time what they have of their own or
// from other sites, so that it need not ask for each page: what a peer has goes
// there as a hash (dedup.Summary). The answer tells what has come since the last
// time only.

// hearEvery is how often a peer is asked. It costs a few packets.
const hearEvery = time.Minute

// hearTime bounds one answer: all that a summary may hold, 12 MiB, over a thin line
// in the background.
const hearTime = 10 * time.Minute

// summaryHeader asks for a summary.
type summaryHeader struct {
	Version int    `json:"version"`
	Store   uint64 `json:"store"`   // of the end that asks
	Heard   uint64 `json:"heard"`   // names what it has heard; another one than the last time: nothing
	Content uint64 `json:"content"` // rises when the end that asks has more itself
}

func parseSummaryHeader(b []byte) (summaryHeader, error) {
	var h summaryHeader
	if err := decodeJSON(b, &h); err != nil {
		return h, fmt.Errorf("reading header of a summary: %w", err)
	}
	if h.Version != protoVersion {
		return h, fmt.Errorf("reading header of a summary: version %d, this gateway speaks %d", h.Version, protoVersion)
	}
	return h, nil
}

// hearPeers asks all peers, from now on until ctx ends.
func (g *Gateway) hearPeers(ctx context.Context) {
	heard := map[*tunnel.Link]bool{}
	tick := time.NewTicker(newLinksEvery)
	defer tick.Stop()
	for {
		for _, l := range g.node.Links() {
			if !heard[l] {
				heard[l] = true
				g.wg.Go(func() { g.hearPeer(ctx, l) })
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hearPeer asks one peer whenever it comes up, has more, or some time has passed.
func (g *Gateway) hearPeer(ctx context.Context, l *tunnel.Link) {
	c := g.commonWith(l.Site())
	tick := time.NewTicker(g.hearEvery)
	defer tick.Stop()
	var last [16]byte // life of the peer that was asked last
	for due := true; ; {
		st, changed := l.Watch()
		if st.Up && (due || l.Epoch() != last) {
			due, last = false, l.Epoch()
			if err := g.hearOnce(ctx, l); err != nil && ctx.Err() == nil {
				g.log.Debug("asking a peer what it has of its own", "peer", l.Site(), "err", err)
			}
		}
		select {
		case <-changed:
		case <-c.more:
			due = true
		case <-tick.C:
			due = true
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gateway) hearOnce(ctx context.Context, l *tunnel.Link) error {
	s, err := g.storeOf(ctx, l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	_, err = g.hear(ctx, l, s)
	return err
}

// hear asks a peer what it has of its own, and tells whether it will have more
// soon.
func (g *Gateway) hear(ctx context.Context, l *tunnel.Link, s *dedup.Store) (busy bool, err error) {
	h := summaryHeader{Version: protoVersion, Store: s.ID(), Heard: s.Heard()}
	if p := g.images.pool; p != nil {
		h.Content = p.Generation()
	}
	ch, err := l.Open(ctx, tunnel.Spec{Kind: kindSummary, Header: encodeJSON(h), Class: tunnel.Urgent, BackBulk: true})
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil { // else both ends have closed it, and the peer may not know yet
			ch.Abort(err.Error())
		}
	}()
	if err := ch.CloseSend(ctx); err != nil {
		return false, err
	}
	for {
		m, err := ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return busy, nil
		}
		if err != nil {
			return false, err
		}
		part, err := dedup.ParseSummary(m.Data)
		if err != nil {
			return false, fmt.Errorf("site %s: %w", l.Site(), err)
		}
		s.Hear(part)
		busy = part.Busy
		ch.Done(m.Seq)
	}
}

// telling is what a peer has been told.
type telling struct {
	store   *dedup.Store  // that it is about
	heard   uint64        // as the peer names it
	told    map[piece]int // pages; what both hold in common was left out
	evicted int64         // of the store, then: what has gone since is told after all
}

// piece names a segment: of a peer's store, or of the pool.
type piece struct {
	store *dedup.Store // nil for the pool
	name  uint64
}

// serveSummary answers a peer that asks what we have of our own.
func (g *Gateway) serveSummary(ctx context.Context, ch *tunnel.Channel) {
	ctx, cancel := context.WithTimeout(ctx, hearTime)
	defer cancel()
	if err := g.answerSummary(ctx, ch); err != nil {
		g.log.Debug("telling a peer what is here", "peer", ch.Site(), "err", err)
		ch.Abort(err.Error())
	}
}

func (g *Gateway) answerSummary(ctx context.Context, ch *tunnel.Channel) error {
	h, err := parseSummaryHeader(ch.Header())
	if err != nil {
		return err
	}
	link := g.node.Link(ch.Site())
	if link == nil {
		return fmt.Errorf("site %s: %w", ch.Site(), ErrNoSite)
	}
	s, err := g.storeOf(ctx, link) // the peer may have agreed a moment before us
	if err != nil {
		return err
	}
	if s.Peer() != h.Store {
		return errors.New("the two stores have not agreed")
	}
	c := g.commonWith(ch.Site())
	c.hasMore(h.Content)
	c.telling.Lock()
	defer c.telling.Unlock()
	if c.told.store != s || c.told.heard != h.Heard {
		c.told = telling{store: s, heard: h.Heard}
	}
	ch.SetFlow(link.NewBackgroundFlow("summary"))
	if err = g.summarize(ctx, ch, s, &c.told); err == nil {
		err = ch.CloseSend(ctx)
	}
	if err == nil {
		err = ch.Flush(ctx) // whoever asks next hears only what is not on its way
	}
	if err != nil {
		c.told = telling{} // what of it was heard is not known
	}
	return err
}

// hasMore asks the peer in turn, if it has more than the last time.
func (c *common) hasMore(content uint64) {
	if c.content.Swap(content) == content {
		return
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// summarize tells the peer of s what it has not been told yet.
func (g *Gateway) summarize(ctx context.Context, ch *tunnel.Channel, s *dedup.Store, t *telling) error {
	var m dedup.Summary
	if t.told == nil || g.stale(t.told) {
		t.told, m.Anew = map[piece]int{}, true
	}
	evicted := s.Stats().Evicted
	again := evicted != t.evicted
	t.evicted = evicted
	var err error
	send := func() {
		m.Busy = g.images.busy.Load() > 0
		if err == nil {
			_, err = ch.Send(ctx, m.Append(nil))
		}
		m = dedup.Summary{}
	}
	left := dedup.DefaultHints // the peer keeps no more
	var unknown []uint64
	for name, sums := range g.contents(ch.Site()) {
		if left -= len(sums); left < 0 || err != nil {
			break
		}
		n, told := t.told[name]
		if told && (n == len(sums) || !again) {
			continue
		}
		unknown = unknown[:0]
		for _, h := range sums {
			if !s.Holds(h) { // else both have it in common
				unknown = append(unknown, h)
			}
		}
		if t.told[name] = len(unknown); len(unknown) > n {
			s.Hints(&m, unknown)
		}
		if m.Len() > dedup.MaxHints-record.SegmentPages {
			send()
		}
	}
	send()
	return err
}

// stale tells whether much of what a peer was told is gone.
func (g *Gateway) stale(told map[piece]int) bool {
	there := 0
	for name := range g.contents("") {
		if _, ok := told[name]; ok {
			there++
		}
	}
	return len(told)-there > len(told)/4+16
}

// contents are the segments that this site has and a peer need not know: the
// newest of its own, and those of other sites.
func (g *Gateway) contents(peer string) func(yield func(piece, []uint64) bool) {
	return func(yield func(piece, []uint64) bool) {
		if p := g.images.pool; p != nil {
			all := p.Segments()
			for i := len(all) - 1; i >= 0; i-- {
				if !yield(piece{nil, all[i]}, p.Sums(all[i])) {
					return
				}
			}
		}
		for _, c := range g.others(peer) {
			goOn := true
			if s := c.live.Load(); s != nil {
				s.Contents(func(name uint64, sums []uint64) bool {
					goOn = yield(piece{s, name}, sums)
					return goOn
				})
			}
			if !goOn {
				return
			}
		}
	}
}
