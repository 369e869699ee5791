package tunnel

import (
	"encoding/binary"
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
		x := binary.BigEndian.Uint32(id.Bytes())
		if max(x, last)-min(x, last) < 1<<12 {
			near++
		}
		last = x
	}
	// By chance 1 in 2^32 is the same and 2 in 2^20 are near: none and half a one.
	if same > 3 || near > 10 {
		t.Errorf("of %d IDs %d are those of another socket, and %d follow the one before", n, same, near)
	}
}
