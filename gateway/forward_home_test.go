package gateway_test

import (
	"testing"

	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// TestForwardHome: what has come through a forward goes home as references from the
// first page on, though the peer keeps it for a connection only from its first batch on.
func TestForwardHome(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	stream := ramStream(disk(12, 8))
	if n := newThrough(t, a, b).wire(a, stream); n < 8<<20 {
		t.Fatalf("noise of 8 MiB crossed as %d bytes", n)
	}
	noChannels(t, 0, a, b)
	if n := newThrough(t, b, a).wire(b, stream); n > few {
		t.Errorf("8 MiB that had come from there went home as %d bytes", n)
	} else {
		t.Logf("%d bytes", n)
	}
}
