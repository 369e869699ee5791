package main

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// dirtier holds the wish of the host.
type dirtier struct {
	mu   sync.Mutex // guards want
	want control.Dirty
}

func (d *dirtier) set(want control.Dirty) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want = want
}

func (d *dirtier) get() control.Dirty {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.want
}

// dirtyForEver rewrites pages and blocks at the rates wished for. What a slow
// processor does not manage within a tenth of a second is not made up for.
func (g *guest) dirtyForEver() error {
	rng := rand.New(rand.NewPCG(g.memory.sum, 1))
	var pages, blocks float64
	last := time.Now()
	for now := range time.Tick(control.Beat * time.Millisecond) {
		want := g.dirty.get()
		took := min(now.Sub(last), 100*time.Millisecond).Seconds()
		last = now
		for pages += float64(want.Rate) * took; pages >= 1; pages-- {
			g.memory.rewrite(g.choose(rng, want.Hot), rng.IntN(100) < want.Sparse)
		}
		if g.disk == nil {
			continue
		}
		for blocks += float64(want.Disk) * took; blocks >= 1; blocks-- {
			if err := g.disk.rewrite(rng.IntN(len(g.disk.versions))); err != nil {
				return err
			}
		}
	}
	return nil
}

// choose picks a page, from all or from the hot ones, which lie scattered over
// the region in runs of four.
func (g *guest) choose(rng *rand.Rand, hot int) int {
	n := len(g.memory.versions)
	if hot == 0 || hot >= n {
		return rng.IntN(n)
	}
	k := rng.IntN(hot)
	return int((uint64(k/4)*0x9e3779b1%uint64(n/4))*4) + k%4
}
