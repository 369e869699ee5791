package tunnel

import (
	"testing"

	"github.com/quic-go/quic-go"
)

// TestConnIDs: none of a socket's connection IDs comes twice before all have come, and
// neither those of one nor those of two sockets follow from each other.
func TestConnIDs(t *testing.T) {
	t.Parallel()
	const n = 1 << 18
	ids, others := newConnIDs(), newConnIDs()
	seen := make(map[quic.ConnectionID]bool, n)
	same, last, near := 0, uint32(0), 0
	for range n {
		id, err := ids.GenerateConnectionID()
		if err != nil || id.Len() != ids.ConnectionIDLen() {
			t.Fatalf("an ID of %d bytes, error %v", id.Len(), err)
		}
		if seen[id] {
			t.Fatalf("%v is there twice among %d", id, len(seen))
		}
		seen[id] = true
		other, _ := others.GenerateConnectionID()
		if id == other {
			same++
		}
		b := id.Bytes()
		x := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
		if max(x, last)-min(x, last) < 16 {
			near++
		}
		last = x
	}
	// By chance 1 in 2^24 is the same and 31 in 2^24 are near: none and half a one.
	if same > 3 || near > 10 {
		t.Errorf("of %d IDs %d are those of another socket, and %d follow the one before", n, same, near)
	}
}

// TestConnIDsComeBack: after 2^24 they begin again, so that all are used.
func TestConnIDsComeBack(t *testing.T) {
	t.Parallel()
	ids := newConnIDs()
	if a, b := ids.scatter(7), ids.scatter(7+1<<24); a != b || a >= 1<<24 {
		t.Errorf("%x and %x", a, b)
	}
}
