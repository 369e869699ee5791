package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/tunnel"
)

const (
	// crossWindow is how much of what is seeded may be on its way, in encoded
	// bytes: 320 Mbit/s over 100 ms.
	crossWindow = 4 << 20

	// busyPause is how long to wait before a peer that reads images itself is
	// asked again; after busyPatience it gets what it may have by then.
	busyPause    = 2 * time.Second
	busyPatience = 10 * time.Minute

	// againGrace is how long a seed that goes on after a restart waits for a link: as
	// long as a peer takes that was restarted at the same time.
	againGrace = 30 * time.Second

	// hearAgain is how often the peer is asked while content crosses, whether it
	// has got some of it by itself.
	hearAgain = 10 * time.Second
)

// crossAll brings segments of the pool to all peers that can be reached, so that
// moves can refer to them.
func (g *Gateway) crossAll(ctx context.Context, t *storeTask, segments []uint64, r SeedRequest) error {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards problems
	var problems []error
	for _, link := range g.node.Links() {
		site := link.Site()
		t.peer(site, func(*TaskPeer) {})
		wg.Go(func() {
			if up := t.up(ctx, link); !up && ctx.Err() == nil {
				t.peer(site, func(p *TaskPeer) {
					p.State, p.Note = "away", "seed again when it is up, or name the directory in the config"
				})
				return
			}
			c := &crossing{g: g, link: link, task: t, rate: cmp.Or(r.Rate, g.cfg.SeedRate), local: r.Local}
			err := c.run(ctx, segments)
			t.peer(site, func(p *TaskPeer) {
				p.State = "done"
				if err != nil {
					p.State, p.Note = "failed", err.Error()
				}
			})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, fmt.Errorf("site %s: %w", site, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(problems...)
}

// up waits for a link that is down: after a restart of the gateway longer than else, since it
// has to come up first.
func (t *storeTask) up(ctx context.Context, link *tunnel.Link) bool {
	grace := linkGrace
	if t.again {
		grace = againGrace
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	return link.WaitUp(ctx) == nil
}

// A crossing brings content of the pool to one peer, in batches like those of a
// move that nobody replays, on a flow in the background.
type crossing struct {
	g     *Gateway
	link  *tunnel.Link
	task  *storeTask
	rate  int64 // bits per second, 0 for no cap
	local bool

	store *dedup.Store
	enc   *dedup.Encoder
	ch    *tunnel.Channel
	heard time.Time
}

// run is the whole of it.
func (c *crossing) run(ctx context.Context, segments []uint64) (err error) {
	if c.store, err = c.g.storeOf(ctx, c.link); err != nil {
		return err
	}
	if err := c.hear(ctx); err != nil || c.local {
		return err
	}
	list, left := c.missing(segments)
	c.tell(func(p *TaskPeer) { p.State, p.Total, p.Left = "sending", left, left })
	if len(list) == 0 {
		return nil
	}
	flow := c.link.NewBackgroundFlow("images")
	flow.SetRate(c.rate / 8)
	c.ch, err = c.link.Open(ctx, tunnel.Spec{Kind: kindSeed, Header: encodeJSON(storeHeader{Version: protoVersion}), Class: tunnel.Bulk, Flow: flow})
	if err != nil {
		return err
	}
	c.ch.SetWindow(crossWindow)
	c.enc = c.store.NewEncoder(dedup.EncoderConfig{Setting: dedup.Setting{Codec: dedup.Zstd, Level: 3}})
	defer c.enc.Close()
	c.ch.OnAcked(c.enc.Acked) // a message is a batch
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	answered := make(chan struct{})
	c.g.wg.Go(func() {
		defer close(answered)
		if err := c.answer(ctx); err != nil {
			stop(err)
		}
	})
	if err = c.send(ctx, list); err == nil {
		err = c.ch.CloseSend(ctx)
	}
	if err == nil {
		err = c.ch.Flush(ctx)
	}
	if err == nil {
		<-answered // the peer closes when it has all, or ctx ends
		err = context.Cause(ctx)
	}
	if err != nil {
		c.ch.Abort(err.Error())
	}
	stop(nil)
	<-answered
	return err
}

func (c *crossing) tell(f func(*TaskPeer)) { c.task.peer(c.link.Site(), f) }

// hear asks the peer what it has by itself, and waits until it has read its own
// images.
func (c *crossing) hear(ctx context.Context) error {
	var note string // that stood there before
	for since, waiting := time.Now(), false; ; waiting = true {
		busy, err := c.g.hear(ctx, c.link, c.store)
		c.heard = time.Now()
		if err != nil || !busy || time.Since(since) > busyPatience {
			if waiting {
				c.tell(func(p *TaskPeer) { p.Note = note })
			}
			return err
		}
		c.tell(func(p *TaskPeer) {
			if !waiting {
				note = p.Note
			}
			p.Note = "waiting: the peer reads images itself"
		})
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// missing are the segments with pages that the two do not both hold, and the
// bytes of these pages. What is most of the store is not filled with them: the
// newest segments are taken.
func (c *crossing) missing(segments []uint64) (list []uint64, bytes int64) {
	room := c.store.Room() / 2
	if most := int(room / (dedup.MaxWanted * page.Size)); len(segments) > most {
		c.tell(func(p *TaskPeer) {
			p.Note = fmt.Sprintf("only the last %d MiB of %d fit into half of the store; raise store.disk at both sites", most, len(segments))
		})
		segments = segments[len(segments)-most:]
	}
	for _, id := range segments {
		n := int64(0)
		for _, h := range c.g.images.pool.Sums(id) {
			if !c.store.Holds(h) {
				n += page.Size
			}
		}
		if n > 0 {
			list = append(list, id)
			bytes += n
		}
	}
	return list, bytes
}

// send encodes and sends what is missing of these segments.
func (c *crossing) send(ctx context.Context, list []uint64) error {
	mem := new([dedup.MaxWanted * page.Size]byte)
	for _, id := range list {
		if time.Since(c.heard) > hearAgain {
			if err := c.hear(ctx); err != nil {
				return err
			}
		}
		n := int64(0)
		for i, h := range c.g.images.pool.Read(id, mem) {
			if h == 0 || c.store.Holds(h) {
				continue
			}
			n += page.Size
			if c.enc.Add(page.Item{Kind: page.Full, Data: mem[i*page.Size : (i+1)*page.Size]}) {
				if err := c.cut(ctx); err != nil {
					return err
				}
			}
		}
		c.progress(n)
	}
	err := c.cut(ctx)
	c.progress(0)
	return err
}

// progress tells that n bytes of pages more are on their way.
func (c *crossing) progress(n int64) {
	s := c.enc.Stats()
	c.tell(func(p *TaskPeer) {
		p.Left = max(p.Left-n, 0)
		p.Claims, p.Sent, p.Wire = s.Claims, s.Literals+s.Deltas, s.Wire
	})
}

// cut sends what has gathered.
func (c *crossing) cut(ctx context.Context) error {
	for b := c.enc.Cut(); b != nil; b = c.enc.Cut() {
		msg, err := b.Compress()
		if err != nil {
			return err
		}
		if _, err := c.ch.Send(ctx, msg); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
	return nil
}

// seedEnd is what the receiver says of content that it could not take.
type seedEnd struct {
	Why    string `json:"why"`
	Rotten bool   `json:"rotten,omitempty"` // refer to nothing of the past any more
	Store  bool   `json:"store,omitempty"`  // the two do not hold the same store
}

// answer waits for the peer's word. It says something only if it fails.
func (c *crossing) answer(ctx context.Context) error {
	m, err := c.ch.Recv(ctx)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	var end seedEnd
	if err := decodeJSON(m.Data, &end); err != nil {
		return fmt.Errorf("reading why the peer does not take images: %w", err)
	}
	c.ch.Done(m.Seq)
	if end.Rotten {
		c.store.Forget()
	}
	if end.Store {
		c.g.dropStore(commonKey{site: c.link.Site()})
	}
	return fmt.Errorf("the peer does not take images: %s", end.Why)
}

// serveSeed takes content that a peer seeds.
func (g *Gateway) serveSeed(ctx context.Context, ch *tunnel.Channel) {
	err := g.takeSeed(ctx, ch)
	if err == nil {
		return
	}
	var ended *tunnel.AbortError
	if errors.As(err, &ended) || errors.Is(err, tunnel.ErrPeerRestarted) || ctx.Err() != nil {
		g.log.Info("images of a peer end early; they go on when it seeds again", "peer", ch.Site(), "err", err)
		ch.Abort(err.Error())
		return
	}
	g.log.Warn("taking images of a peer", "peer", ch.Site(), "err", err)
	end := seedEnd{Why: err.Error(), Rotten: errors.Is(err, dedup.ErrMismatch), Store: errors.Is(err, dedup.ErrStore)}
	if end.Store {
		g.dropStore(commonKey{site: ch.Site()})
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, e := ch.Send(ctx, encodeJSON(end)); e == nil && ch.CloseSend(ctx) == nil {
		_ = ch.Flush(ctx) // the channel ends with this, heard or not
	}
	ch.Abort(err.Error())
}

func (g *Gateway) takeSeed(ctx context.Context, ch *tunnel.Channel) error {
	h, err := parseStoreHeader(ch.Header())
	if err != nil {
		return err
	}
	if h.Tenant != "" {
		return fmt.Errorf("images of tenant %q: images are of no tenant: %w", h.Tenant, ErrInvalid)
	}
	link := g.node.Link(ch.Site())
	if link == nil {
		return fmt.Errorf("site %s: %w", ch.Site(), ErrNoSite)
	}
	store, err := g.storeOf(ctx, link)
	if err != nil {
		return err
	}
	dec := store.NewDecoder(dedup.DecoderConfig{Fetch: fetcher(ctx, link, "", g.log)})
	defer dec.Close()
	var raw []byte
	for {
		m, err := ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return ch.CloseSend(ctx)
		}
		if err != nil {
			return err
		}
		x, err := dedup.Expand(m.Data)
		if err != nil {
			return fmt.Errorf("message %d: %w", m.Seq, err)
		}
		// Expand does not keep it.
		tunnel.Recycle(m.Data)
		if raw, _, err = dec.Decode(raw[:0], x); err != nil { // raw is of no use: the store has the pages
			return fmt.Errorf("message %d: %w", m.Seq, err)
		}
		ch.Done(m.Seq)
	}
}
