package gateway_test

import (
	"crypto/sha256"
	"testing"

	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// TestForwardMigrationsInARow: a migration that begins as soon as the one before
// is through, while the gateways are still taking leave of that, is one of its
// own.
func TestForwardMigrationsInARow(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	p := newThrough(t, a, b)
	stream := ramStream(realPages(t, 64))
	for i := range 300 {
		if got := p.send(stream); got != sha256.Sum256(stream) {
			t.Fatalf("migration %d: another stream came out", i)
		}
	}
}
