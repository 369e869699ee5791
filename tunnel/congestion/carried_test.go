package congestion

import (
	"testing"
	"time"
)

// TestCarried: the pace of a configured rate comes closer to it once the line has
// carried it for some rounds, and not by rounds in which little was sent; a queue, a
// change of the rate and congestion take that back.
func TestCarried(t *testing.T) {
	const rate = 12_500_000
	m := newModel(rate)
	now := time.Duration(0)
	rounds := func(n int, r round, queue, kept bool) {
		for range n {
			now += ms(100)
			m.step(now, r, queue, rate, kept)
		}
	}
	want := func(what string, gain float64) {
		t.Helper()
		if got := m.pace(); got != int64(gain*rate) {
			t.Errorf("%s: a pace of %.4f of the rate, want %.3f", what, float64(got)/rate, gain)
		}
	}
	rounds(3*carriedRounds, round{limited: true}, false, false)
	want("little was sent", configuredGain)
	rounds(carriedRounds, round{}, false, true)
	want("carried", carriedGain)
	rounds(3, round{limited: true}, false, false)
	want("and then little", carriedGain)
	m.carried = 0 // a queue also trims, which is another gain
	rounds(carriedRounds-1, round{}, false, true)
	want("not for long", configuredGain)
	rounds(1, round{}, false, true)
	m.setRate(rate)
	want("a rate anew", configuredGain)
	rounds(carriedRounds, round{}, false, true)
	m.collapse(now, rate, 0.2, false)
	if m.carried != 0 {
		t.Error("carried after congestion")
	}
	m = newModel(rate)
	rounds(carriedRounds, round{}, false, true)
	rounds(1, round{}, true, true)
	if m.carried != 0 {
		t.Error("carried with a queue")
	}
}
