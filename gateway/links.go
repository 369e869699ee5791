package gateway

import (
	"context"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// newLinksEvery is how often we look whether a site that is not in the config
// has dialed us for the first time.
const newLinksEvery = time.Second

// watchLinks tells LinkChanged of every link that comes up or goes down, until
// ctx ends.
func (g *Gateway) watchLinks(ctx context.Context) {
	watched := map[*tunnel.Link]bool{}
	tick := time.NewTicker(newLinksEvery)
	defer tick.Stop()
	for {
		for _, l := range g.node.Links() {
			if !watched[l] {
				watched[l] = true
				g.wg.Go(func() { g.watchLink(ctx, l) })
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gateway) watchLink(ctx context.Context, l *tunnel.Link) {
	for was := false; ; {
		st, changed := l.Watch()
		if st.Up != was {
			was = st.Up
			g.cfg.LinkChanged(l.Site(), was)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
