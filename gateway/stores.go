package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/tunnel"
)

// agreeTime bounds the exchange of catalogs: a round trip over any WAN, and
// 8 MiB over a thin one.
const agreeTime = 30 * time.Second

// A common is the content that this gateway and one peer both hold for one tenant. It is on
// disk between the lives of the two processes; whenever one of them has begun
// anew they exchange catalogs, and hold what both have kept.
//
// Each end makes its catalog once for each life of the peer, so either may ask,
// both at once, and as often as they like: they end up with the same two.
type common struct {
	g      *Gateway
	site   string
	tenant string
	dir    *store.Dir // nil: nothing is on disk

	live    atomic.Pointer[dedup.Store] // store, for who looks for a page
	more    chan struct{}               // one place: the peer has more of its own than it has told
	content atomic.Uint64               // how much it had the last time

	telling sync.Mutex // guards told; held while the peer is told
	told    telling

	mu      sync.Mutex // guards what follows; not held while the peer is asked
	epoch   [16]byte   // the life of the peer that all below is for
	lib     *dedup.Library
	catalog dedup.Catalog // ours
	peer    uint64        // name of the peer's store, once the two have agreed
	store   *dedup.Store  // nil until then
}

// commonWith finds or makes what we hold in common with a site for the default
// tenant.
func (g *Gateway) commonWith(site string) *common { return g.commonOf(commonKey{site: site}) }

// commonOf finds or makes what we hold in common with a site for a tenant, who is
// known.
func (g *Gateway) commonOf(h commonKey) *common {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.commons[h]
	if c == nil {
		c = &common{g: g, site: h.site, tenant: h.tenant, more: make(chan struct{}, 1)}
		if g.cfg.StoreDir != "" {
			dir, err := store.Open(g.storeDir(h))
			if err != nil {
				c.log().Error("content store is in memory only", "err", err)
			}
			c.dir = dir
		}
		g.commons[h] = c
	}
	return c
}

// log names the peer, and the tenant if there are any.
func (c *common) log() *slog.Logger {
	log := c.g.log.With("peer", c.site)
	if c.tenant != "" {
		log = log.With("tenant", c.tenant)
	}
	return log
}

// storeOf returns what this gateway and a peer both hold for the default tenant. If
// they have to agree on that first it asks the peer.
func (g *Gateway) storeOf(ctx context.Context, link *tunnel.Link) (*dedup.Store, error) {
	return g.agreeOn(ctx, link, g.commonWith(link.Site()))
}

// agreeOn returns the store of what is held in common.
func (g *Gateway) agreeOn(ctx context.Context, link *tunnel.Link, c *common) (*dedup.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, agreeTime)
	defer cancel()
	for tries := 1; ; tries++ {
		ours, s, err := c.open(link)
		if err != nil || s != nil {
			return s, err
		}
		theirs, err := exchange(ctx, link, c.tenant, ours)
		var refused *tunnel.AbortError // the peer has begun anew meanwhile, say
		if errors.As(err, &refused) && tries < agreeTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("agreeing with site %s on what both hold: %w", link.Site(), err)
		}
		if s, err := c.agree(theirs, ours.Store); err != nil || s != nil {
			return s, err
		}
	}
}

// agreeTries is how often the peer is asked: a second time if one end has begun
// anew, a third if both have.
const agreeTries = 3

// open makes the library ready for the peer's present life. The store is nil if
// the two have not agreed yet.
func (c *common) open(link *tunnel.Link) (dedup.Catalog, *dedup.Store, error) {
	epoch := link.Epoch()
	if epoch == [16]byte{} {
		return dedup.Catalog{}, nil, fmt.Errorf("site %s: no contact yet: %w", c.site, ErrUnavailable)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lib == nil || c.epoch != epoch {
		if err := c.begin(); err != nil {
			return dedup.Catalog{}, nil, err
		}
		c.epoch = epoch
	}
	return c.catalog, c.store, nil
}

// begin opens the library anew. Moves under way keep the store that they have;
// it keeps nothing on disk any more. The caller holds mu.
func (c *common) begin() error {
	c.drop()
	cfg := dedup.LibraryConfig{
		Memory: c.g.tenantShare(c.g.cfg.StoreMemory, dedup.DefaultBudget), Disk: c.g.tenantShare(c.g.cfg.StoreDisk, dedup.DefaultDisk),
		Key: c.g.tenantKey(c.tenant), Elsewhere: c.g.elsewhere(c.site, c.tenant), Logger: c.log(),
	}
	lib, err := dedup.OpenLibrary(c.dir, cfg)
	if err != nil && c.dir != nil {
		c.log().Error("content store is in memory only", "err", err)
		lib, err = dedup.OpenLibrary(nil, cfg)
	}
	if err != nil {
		return fmt.Errorf("content store of site %s: %w", c.site, err)
	}
	c.lib, c.catalog = lib, lib.Catalog()
	return nil
}

// drop lets go of the store. The caller holds mu.
func (c *common) drop() {
	c.live.Store(nil)
	if c.store != nil {
		c.store.Close()
	}
	c.store, c.lib, c.peer = nil, nil, 0
}

// agree makes the store, given the peer's catalog, if ours is still the one
// that the peer was told; else the store is nil, and the peer has to be asked
// again.
func (c *common) agree(theirs dedup.Catalog, ours uint64) (*dedup.Store, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lib == nil || c.catalog.Store != ours {
		return nil, nil
	}
	if c.store != nil && c.peer == theirs.Store {
		return c.store, nil
	}
	if c.store != nil { // the peer has begun anew without a restart
		return nil, c.begin()
	}
	s, err := c.lib.Agree(theirs)
	if err != nil {
		c.lib = nil
		return nil, fmt.Errorf("content store of site %s: %w", c.site, err)
	}
	c.store, c.peer = s, theirs.Store
	c.live.Store(s)
	st := s.Stats()
	c.log().Info("content store", "pages", st.Pages(), "bytes", st.Bytes)
	c.g.wg.Go(func() { s.Warm(func() bool { return c.g.ctx.Err() != nil || s.Closed() }) })
	return s, nil
}

// exchange finds out the peer's catalog, and tells it ours. The two tell each
// other outlines first, and then of their catalogs what does not follow from these.
func exchange(ctx context.Context, link *tunnel.Link, tenant string, ours dedup.Catalog) (c dedup.Catalog, err error) {
	h := storeHeader{Version: protoVersion, Tenant: tenant}
	ch, err := link.Open(ctx, tunnel.Spec{Kind: kindStore, Header: encodeJSON(h), Class: tunnel.Urgent})
	if err != nil {
		return c, err
	}
	defer func() {
		if err != nil { // else both ends have closed it, and the peer may not know yet
			ch.Abort(err.Error())
		}
	}()
	short := ours.Outline()
	if _, err := ch.Send(ctx, short.Append(nil)); err != nil {
		return c, err
	}
	theirs, err := receive(ctx, ch, dedup.ParseOutline)
	if err != nil {
		return c, err
	}
	part, err := receive(ctx, ch, dedup.ParseCatalog)
	if err != nil {
		return c, err
	}
	if mine, differ := ours.Differs(theirs); differ {
		if _, err := ch.Send(ctx, mine.Append(nil)); err != nil {
			return c, err
		}
	}
	if err := ch.CloseSend(ctx); err != nil {
		return c, err
	}
	if err := atEnd(ctx, ch); err != nil { // the peer has agreed as well
		return c, err
	}
	return ours.Complete(theirs, part), nil
}

// receive reads the next message of a channel.
func receive[T any](ctx context.Context, ch *tunnel.Channel, parse func([]byte) (T, error)) (v T, err error) {
	m, err := ch.Recv(ctx)
	if err != nil {
		return v, err
	}
	if v, err = parse(m.Data); err == nil {
		ch.Done(m.Seq)
	}
	return v, err
}

// atEnd waits for the end of what the peer says.
func atEnd(ctx context.Context, ch *tunnel.Channel) error {
	_, err := ch.Recv(ctx)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errors.New("more came than a catalog")
	}
	return err
}

// serveStore answers a peer that tells its catalog.
func (g *Gateway) serveStore(ctx context.Context, ch *tunnel.Channel) {
	ctx, cancel := context.WithTimeout(ctx, agreeTime)
	defer cancel()
	if err := g.answerCatalog(ctx, ch); err != nil {
		g.log.Warn("exchanging catalogs", "peer", ch.Site(), "err", err)
		ch.Abort(err.Error())
	}
}

func (g *Gateway) answerCatalog(ctx context.Context, ch *tunnel.Channel) error {
	h, err := parseStoreHeader(ch.Header())
	if err == nil {
		err = g.checkTenant(h.Tenant)
	}
	if err != nil {
		return err
	}
	link := g.node.Link(ch.Site())
	if link == nil {
		return fmt.Errorf("site %s: %w", ch.Site(), ErrNoSite)
	}
	theirs, err := receive(ctx, ch, dedup.ParseOutline)
	if err != nil {
		return err
	}
	c := g.commonOf(commonKey{ch.Site(), h.Tenant})
	ours, err := c.openFor(link, theirs.Store)
	if err != nil {
		return err
	}
	short := ours.Outline()
	mine, differ := ours.Differs(theirs)
	for _, msg := range [][]byte{short.Append(nil), mine.Append(nil)} {
		if _, err := ch.Send(ctx, msg); err != nil {
			return err
		}
	}
	var part dedup.Catalog
	if differ {
		if part, err = receive(ctx, ch, dedup.ParseCatalog); err != nil {
			return err
		}
	}
	s, err := c.agree(ours.Complete(theirs, part), ours.Store)
	if err != nil {
		return err
	}
	if s == nil {
		return errors.New("the store has been begun anew meanwhile")
	}
	if err := atEnd(ctx, ch); err != nil {
		return err
	}
	if err := ch.CloseSend(ctx); err != nil {
		return err
	}
	return ch.Flush(ctx)
}

// openFor is open for a peer that names its store: if ours is in common with
// another one, which the peer has lost, it begins anew.
func (c *common) openFor(link *tunnel.Link, peer uint64) (dedup.Catalog, error) {
	ours, _, err := c.open(link)
	if err != nil {
		return ours, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store != nil && c.peer != peer {
		err = c.begin()
	}
	return c.catalog, err
}

// dropStore forgets what is held in common with a peer for a tenant, because the two
// do not agree on what that is. Moves under way keep what they have.
func (g *Gateway) dropStore(h commonKey) {
	c := g.commonOf(h)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	if c.dir == nil {
		return
	}
	if err := c.dir.Wipe(); err != nil {
		c.log().Warn("emptying a content store", "err", err)
	}
}

// closeStores brings all stores to disk.
func (g *Gateway) closeStores() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.commons {
		c.close()
	}
	if err := g.images.close(); err != nil {
		g.log.Warn("closing the pool of images", "err", err)
	}
}

func (c *common) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	if c.dir != nil {
		if err := c.dir.Close(); err != nil {
			c.log().Warn("closing a content store", "err", err)
		}
	}
}

// agreed are the stores of all peers and tenants.
func (g *Gateway) agreed() (all []*dedup.Store) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.commons {
		c.mu.Lock()
		if c.store != nil {
			all = append(all, c.store)
		}
		c.mu.Unlock()
	}
	return all
}
