//go:build !race

package gateway

import (
	"math/rand/v2"
	"testing"
	"time"
)

// One goroutine has no races, and takes ten times as long with the race detector: that is
// why this runs without (Makefile).

// TestCodecAnyWorld goes through machines, lines and streams that have little in
// common with the table: the move must be nearly as fast as the best setting
// makes it, or leave clearly fewer bytes where these are dear, and the setting must come to rest.
func TestCodecAnyWorld(t *testing.T) {
	for n := range uint64(3) {
		anyWorlds(t, *codecSeed+3*n)
	}
}

func anyWorlds(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 60 {
		w := anyWorld(rng)
		c := newChooser()
		w.run(t, c, time.Minute)
		w.changes = 0
		sum := 0.0
		const ticks = 3000
		for range ticks {
			w.run(t, c, 100*time.Millisecond)
			sum += w.stream
		}
		best, at := w.best()
		least := 0.85
		if w.line <= thinLine { // where fewer bytes are worth more than speed: some up to a fifth, clearly fewer even more
			least = nearly
			if w.wire(c.now) <= lessWire*w.wire(at) {
				least = 1 / gainWaste
			}
		}
		if got := sum / ticks; got < least*best {
			t.Errorf("seed %d, world %d: %.1f MB/s, in the end with %v, but %.1f with %v; held up by %s; %v, content\n%+v, taken for\n%+v",
				seed, i, got/1e6, c.now.setting(), best/1e6, at.setting(), c.limited, w, w.content, c.content)
		}
		if w.changes > 12 {
			t.Errorf("seed %d, world %d: %d changes in 5 minutes in which nothing changed", seed, i, w.changes)
		}
	}
}
