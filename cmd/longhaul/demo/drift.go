package demo

import "github.com/longhaul-project/longhaul/cmd/longhaul/pair"

// Drift is what the gateways held after the first round trip and after the
// last: none of it may grow with the number of moves.
type Drift struct {
	First map[string]pair.Held `json:"first"` // by site
	Last  map[string]pair.Held `json:"last"`
}

func (d *Document) judgeDrift(bad func(string, ...any)) {
	if d.Drift == nil {
		return
	}
	for site, first := range d.Drift.First {
		if last := d.Drift.Last[site]; first.Drifted(last) {
			bad("gateway of site %s holds more and more: %+v, then %+v", site, first, last)
		}
	}
}
