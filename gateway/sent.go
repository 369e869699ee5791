package gateway

import "sync"

// sentQueue remembers which batch each message of a leg held, until the peer
// has consumed it: the tunnel counts messages, the encoder batches. The window
// of the channel bounds its length.
type sentQueue struct {
	mu    sync.Mutex // guards what follows
	first uint64     // number of the message that batches[0] was; messages count from 1
	queue []uint64   // batch number, 0 for a seal
}

func (q *sentQueue) put(p parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first == 0 {
		q.first = 1
	}
	var n uint64
	if p.batch != nil {
		n = p.batch.Seq
	}
	q.queue = append(q.queue, n)
}

// upTo forgets the messages up to seq and returns the highest batch among
// them, 0 if there is none.
func (q *sentQueue) upTo(seq uint64) (batch uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) > 0 && q.first <= seq {
		batch = max(batch, q.queue[0])
		q.queue = q.queue[1:]
		q.first++
	}
	return batch
}
