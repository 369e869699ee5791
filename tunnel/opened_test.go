package tunnel

import (
	"testing"

	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// Data of a channel may come before its Open, by another stream. It is not acknowledged
// until then: the peer would take the channel for known, and not open it again when the set
// with the Open in it is replaced.
func TestAcknowledgesNothingUnopened(t *testing.T) {
	t.Parallel()
	l, c := halfLink(t)
	id := uint64(1)
	if l.opens(id) {
		id++
	}
	if err := l.deliver(frame.Chunk{Channel: id, Seq: 1, Total: 1, Len: 1}, []byte{7}); err != nil {
		t.Fatal(err)
	}
	if acks := acksIn(t, l.compose(c, nil)); len(acks) > 0 {
		t.Errorf("before the channel was opened: %+v", acks)
	}
	l.mu.Lock()
	_, err := l.dispatch(frame.Open{Channel: id})
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if acks := acksIn(t, l.compose(c, nil)); len(acks) != 1 || acks[0].Channel != id || acks[0].Received != 1 {
		t.Errorf("after it was opened: %+v", acks)
	}
}
