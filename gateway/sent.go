package gateway

import "sync"

// sentQueue remembers which batch each message of a leg held, until the peer
// has consumed it: the tunnel counts messages, the encoder batches. The window
// of the channel bounds its length.
type sentQueue struct {
	mu    sync.Mutex // guards what follows
	first uint64     // number of the message that batches[0] was; messages count from 1
	queue []sentMessage
}

// sentMessage is one message of a leg.
type sentMessage struct {
	batch uint64 // its number; 0 for a seal
	raw   int    // bytes of stream that it stands for
}

func (q *sentQueue) put(p parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first == 0 {
		q.first = 1
	}
	var m sentMessage
	if p.batch != nil {
		m = sentMessage{p.batch.Seq, p.batch.Raw}
	}
	q.queue = append(q.queue, m)
}

// last is the number of the message that was put last; 0 if none was.
func (q *sentQueue) last() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.first+uint64(len(q.queue)), 1) - 1
}

// upTo forgets the messages up to seq. It returns the highest batch among them,
// 0 if there is none, and how many bytes of stream they stand for.
func (q *sentQueue) upTo(seq uint64) (batch uint64, raw int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) > 0 && q.first <= seq {
		batch = max(batch, q.queue[0].batch)
		raw += int64(q.queue[0].raw)
		q.queue = q.queue[1:]
		q.first++
	}
	return batch, raw
}
