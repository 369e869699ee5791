package wanem

// flight holds the packets behind the bottleneck, a heap whose first is due
// first. Typed, because container/heap would allocate for every packet.
type flight []packet

func (f flight) before(i, j int) bool {
	if f[i].due != f[j].due {
		return f[i].due < f[j].due
	}
	return f[i].seq < f[j].seq
}

func (f *flight) push(p packet) {
	*f = append(*f, p)
	h := *f
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.before(i, up) {
			return
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// pop takes the packet that is due first; f is not empty.
func (f *flight) pop() packet {
	h := *f
	first, n := h[0], len(h)-1
	h[0] = h[n]
	h[n] = packet{} // lets go of the buffer
	h = h[:n]
	*f = h
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return first
		}
		if down+1 < n && h.before(down+1, down) {
			down++
		}
		if !h.before(down, i) {
			return first
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
}

// fifo is a ring of packets that grows as needed; the Line bounds it.
type fifo struct {
	ring  []packet
	first int
	n     int
}

func (q *fifo) len() int { return q.n }

// head is the oldest packet; q is not empty.
func (q *fifo) head() packet { return q.ring[q.first] }

func (q *fifo) push(p packet) {
	if q.n == len(q.ring) {
		bigger := make([]packet, max(64, 2*q.n))
		for i := range q.n {
			bigger[i] = q.ring[(q.first+i)%q.n]
		}
		q.ring, q.first = bigger, 0
	}
	q.ring[(q.first+q.n)%len(q.ring)] = p
	q.n++
}

// pop takes the oldest packet; q is not empty.
func (q *fifo) pop() packet {
	p := q.ring[q.first]
	q.ring[q.first] = packet{} // lets go of the buffer
	q.first = (q.first + 1) % len(q.ring)
	q.n--
	return p
}
