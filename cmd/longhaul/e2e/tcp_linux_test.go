package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// TestMoveOverTCP moves a guest there and back over a link that TCP carries: its
// segment, its client's session and the membership of the sites go over it too.
func TestMoveOverTCP(t *testing.T) {
	t.Parallel()
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 20 * time.Millisecond, Loss: 0.0005}, carrier: "tcp"})
	p := b.probe(t)
	for range 2 {
		b.move(t, gateway.MigrateRequest{})
		b.verify(t)
		p.alive(t)
	}
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	for _, s := range b.sites() {
		poll(t, ctx, func() error {
			st, err := b.pair.API(s).Status(ctx)
			if err == nil && (len(st.Peers) != 1 || st.Peers[0].Carrier != "tcp" || st.Peers[0].Member != "alive") {
				err = fmt.Errorf("site %s says %+v", s.Name, st.Peers)
			}
			return err
		})
	}
}
