package demo

import (
	"context"
	"fmt"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
)

// measureDrift notes what the gateways hold, after the second move (the first
// round trip) and after every later one.
func (r *runner) measureDrift(ctx context.Context, gateways *pair.Pair, n int) error {
	if n == 0 {
		return nil
	}
	held := map[string]pair.Held{}
	for _, s := range []*lab.Site{r.lab.A, r.lab.B} {
		h, err := gateways.Held(ctx, s)
		if err != nil {
			return fmt.Errorf("looking at the gateway of site %s: %w", s.Name, err)
		}
		held[s.Name] = h
	}
	if r.doc.Drift == nil {
		r.doc.Drift = &Drift{First: held}
	}
	r.doc.Drift.Last = held
	return nil
}
