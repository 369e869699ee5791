package hvtest

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longhaul-project/longhaul/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFakes returns two machines, a and b, and db1 running at a.
func newFakes(t *testing.T, g Guest) (a, b *FakeHost, l *Ledger) {
	l = new(Ledger)
	a, b = NewFakeHost("a", l), NewFakeHost("b", l)
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	a.Add(g)
	return a, b, l
}

var testGuest = Guest{Name: "db1", NICs: []gateway.NIC{{MAC: "52:54:00:00:00:01", Tap: "tap0"}}}

func TestFakePassesTheSuite(t *testing.T) {
	for _, kind := range []string{"unix sockets", "memory", "slow"} {
		t.Run(kind, func(t *testing.T) {
			Run(t, func(t *testing.T) Pair {
				a, b, l := newFakes(t, testGuest)
				if kind == "memory" {
					a.UseMemory()
					b.UseMemory()
				}
				if kind == "slow" {
					a.Slow(1, 50*time.Millisecond)
					b.Slow(2, 50*time.Millisecond)
				}
				return Pair{
					A: a, B: b, VM: "db1",
					Check: func(t *testing.T, at string) { l.Check(t, "db1", at) },
					Restart: func(t *testing.T, h gateway.Host) gateway.Host {
						h.(*FakeHost).DropGateway()
						return h
					},
				}
			})
		})
	}
}
