package ccslot

import (
	"testing"
	"time"

	"github.com/quic-go/quic-go/internal/protocol"
)

// TestQueue keeps a run loop busy while acknowledgements come, and sees them
// wait, and none wait any more at the end.
func TestQueue(t *testing.T) {
	if QueueLimit != protocol.MaxConnUnprocessedPackets {
		t.Errorf("quic-go keeps %d packets now", protocol.MaxConnUnprocessedPackets)
	}
	server, client, c := newEnd(t), newEnd(t), new(counting)
	server.listen(t, nil)
	conn := client.dial(t, server, c)
	q, err := QueueOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	c.hold.Store(&hold)
	done := make(chan struct{})
	go func() {
		defer close(done)
		roundTrip(t, conn, 300<<10)
	}()
	deadline := time.Now().Add(2 * time.Minute)
	for q.Len() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := q.Len(); n == 0 || n > QueueLimit {
		t.Errorf("%d packets wait", n)
	}
	c.hold.Store(nil)
	close(hold)
	<-done
	for q.Len() > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := q.Len(); n != 0 {
		t.Errorf("%d packets wait at the end", n)
	}
}
