package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// pagesHeader asks for pages that the asking end has lost of what both held.
type pagesHeader struct {
	Version int          `json:"version"`
	Tenant  string       `json:"tenant,omitempty"` // for whom both held them
	Wanted  dedup.Wanted `json:"wanted"`
}

func parsePagesHeader(b []byte) (pagesHeader, error) {
	var h pagesHeader
	if err := decodeJSON(b, &h); err != nil {
		return h, fmt.Errorf("reading header of wanted pages: %w", err)
	}
	if h.Version != protoVersion {
		return h, fmt.Errorf("reading header of wanted pages: version %d, this gateway speaks %d", h.Version, protoVersion)
	}
	return h, nil
}

// fetcher asks a peer for pages of a tenant. It waits while the WAN is away, until
// ctx ends.
func fetcher(ctx context.Context, link *tunnel.Link, tenant string, log *slog.Logger) dedup.Fetch {
	return func(w dedup.Wanted) ([]byte, error) {
		if w.Claimed {
			log.Info("the peer thinks that pages are here which are not; asking it for them", "peer", link.Site(), "page", w.Number, "pages", w.Count)
		} else {
			log.Warn("pages of the content store are lost or rotten here; asking the peer", "peer", link.Site(), "page", w.Number, "pages", w.Count)
		}
		ch, err := link.Open(ctx, tunnel.Spec{
			Kind: kindPages, Header: encodeJSON(pagesHeader{Version: protoVersion, Tenant: tenant, Wanted: w}), Class: tunnel.Urgent,
		})
		if err != nil {
			return nil, err
		}
		defer ch.Abort("answered") // if it has not ended
		if err := ch.CloseSend(ctx); err != nil {
			return nil, err
		}
		m, err := ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the peer does not answer")
		}
		if err != nil {
			return nil, err
		}
		ch.Done(m.Seq)
		return m.Data, nil
	}
}

// servePages answers a peer that has lost pages.
func (g *Gateway) servePages(ctx context.Context, ch *tunnel.Channel) {
	ctx, cancel := context.WithTimeout(ctx, agreeTime)
	defer cancel()
	if err := g.answerPages(ctx, ch); err != nil {
		g.log.Warn("a peer has lost pages of the content store, and cannot have them from here", "peer", ch.Site(), "err", err)
		ch.Abort(err.Error())
	}
}

func (g *Gateway) answerPages(ctx context.Context, ch *tunnel.Channel) error {
	h, err := parsePagesHeader(ch.Header())
	if err != nil {
		return err
	}
	if err := g.checkTenant(h.Tenant); err != nil {
		return err
	}
	c := g.commonOf(commonKey{ch.Site(), h.Tenant})
	c.mu.Lock()
	s := c.store
	c.mu.Unlock()
	if s == nil || g.noPages.Load() {
		return errors.New("no store is held in common")
	}
	b, err := s.Pages(h.Wanted)
	if err != nil {
		return err
	}
	g.log.Info("a peer does not have pages of the content store; they go there again", "peer", ch.Site(), "bytes", len(b))
	if _, err := ch.Send(ctx, b); err != nil {
		return err
	}
	if err := ch.CloseSend(ctx); err != nil {
		return err
	}
	return ch.Flush(ctx)
}
