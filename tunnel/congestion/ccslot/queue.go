package ccslot

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/quic-go/quic-go"
)

// QueueLimit is how many received packets quic-go keeps for a connection whose
// run loop is busy; what comes beyond it is dropped without a word
// (protocol.MaxConnUnprocessedPackets).
const QueueLimit = 256

// A Queue is the received packets that wait for a connection's run loop.
type Queue struct {
	mu   *sync.Mutex   // quic-go's own
	ring reflect.Value // a slice, whose length is the number of packets
}

// QueueOf finds the queue of a connection.
func QueueOf(conn *quic.Conn) (*Queue, error) {
	q := reflect.ValueOf(conn).Elem().FieldByName("receivedPackets")
	if q.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%w: Conn.receivedPackets is no struct", errShape)
	}
	mu, ring := q.FieldByName("mx"), q.FieldByName("main")
	if ring.Kind() == reflect.Struct {
		ring = ring.FieldByName("ring")
	}
	if !mu.IsValid() || mu.Type() != reflect.TypeFor[sync.Mutex]() || ring.Kind() != reflect.Slice {
		return nil, fmt.Errorf("%w: Conn.receivedPackets has no mx and main.ring", errShape)
	}
	return &Queue{mu: open(mu).Addr().Interface().(*sync.Mutex), ring: open(ring)}, nil
}

// Len is the number of packets that wait. Any goroutine may ask.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ring.Len()
}
