package tunnel

import (
	"errors"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestStockIsToldFar: that one end has NewReno, and why, is known at the other, whichever has
// dialed; and so when it comes to that while the link is up.
func TestStockIsToldFar(t *testing.T) {
	t.Parallel()
	stock := func(c *Config) { c.NewReno = true }
	for name, o := range map[string]options{"the one that dials": {a: stock}, "the one that does not": {b: stock}} {
		t.Run(name, func(t *testing.T) {
			inLab(t, testwan.Line{Delay: 5 * time.Millisecond}, o, func(t *testing.T, l *lab) {
				l.up()
				time.Sleep(time.Second)
				with, without := l.a.Link("b").State(), l.b.Link("a").State()
				if o.a == nil {
					with, without = without, with
				}
				if without.FarController != nameStock+": as configured" || without.Controller != nameAutomatic || with.FarController != "" {
					t.Errorf("with it %q, %q, without %q, %q", with.Controller, with.FarController, without.Controller, without.FarController)
				}
			})
		})
	}
	inLab(t, testwan.Line{Delay: 5 * time.Millisecond}, options{}, func(t *testing.T, l *lab) {
		l.up()
		time.Sleep(time.Second)
		l.farSays("at first", "", "")
		link := l.a.Link("b")
		link.mu.Lock()
		link.unseated = errors.New("quic-go has changed")
		link.mu.Unlock()
		time.Sleep(pingEvery)
		l.farSays("then", "", nameStock+": quic-go has changed")
	})
}
