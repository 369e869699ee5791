package dedup

import (
	"runtime"
	"testing"
	"weak"
)

// TestCollected: stores that nobody uses any more are garbage, whether or not
// their channels were closed: when a peer starts anew, both begin with new ones.
func TestCollected(t *testing.T) {
	for name, end := range map[string]func(*wire){
		"closed":    func(w *wire) { w.close(); w.e.Close(); w.d.Close() },
		"forgotten": func(w *wire) { w.flush() },
	} {
		a, b := there(t, end)
		for range 20 {
			runtime.GC()
		}
		if a.Value() != nil || b.Value() != nil {
			t.Errorf("channels %s: a store stays in memory", name)
		}
	}
}

// there moves a guest there and back again.
func there(t *testing.T, end func(*wire)) (a, b weak.Pointer[Store]) {
	x, y := NewStore(Config{Budget: 8 << 20}), NewStore(Config{Budget: 8 << 20})
	for _, s := range [][2]*Store{{x, y}, {y, x}} {
		w := newWire(t, s[0], s[1], EncoderConfig{PeerReady: true})
		w.add(guest(1, 300)...)
		end(w)
	}
	return weak.Make(x), weak.Make(y)
}
