package tunnel

import (
	"context"
	"testing"
	"time"
)

// TestBackgroundFlow: what is in the background has the link when nobody else
// wants it, and hardly any of it otherwise.
func TestBackgroundFlow(t *testing.T) {
	t.Parallel()
	line := lineFast
	line.Rate = 1_250_000
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(1_000_000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		move, below := link.NewFlow("move"), link.NewBackgroundFlow("below")
		from, to := l.open(Spec{Flow: below})
		flood(ctx, from, to, 64<<10)
		time.Sleep(2 * time.Second)
		alone := below.WireSent()
		time.Sleep(time.Second)
		within(t, "alone", float64(below.WireSent()-alone), 1_000_000)

		from, to = l.open(Spec{Flow: move})
		flood(ctx, from, to, 64<<10)
		time.Sleep(time.Second)
		a, b := move.WireSent(), below.WireSent()
		time.Sleep(2 * time.Second)
		got, rest := move.WireSent()-a, below.WireSent()-b
		if got < 30*rest {
			t.Errorf("the move has sent %d bytes and what is in the background %d", got, rest)
		}
		within(t, "move beside it", float64(got)/2, 980_000)
	})
}
