package tunnel

import (
	"math/bits"
	"sync"
)

// The data of a message is its receiver's. Who needs it for a moment only gives it
// back, and the next message is put together in it: memory that a processor has just
// had at hand, where new memory has to be found, cleared and often asked of the
// kernel page by page, at a rate of hundreds of megabytes a second.

// Buffers are of eight sizes between a power of two and the next, from leastBuffer up
// to the longest message; smaller ones are left to Go.
const (
	leastBuffer = 4 << 10
	perDoubling = 8
)

// recycled has the buffers that were given back, by their size. They go with the
// garbage when nobody wants them.
var recycled [16 * perDoubling]sync.Pool

// bufferSize is the size of the buffer for n bytes, at least leastBuffer, and its place in
// recycled. It is an eighth more than n at the most.
func bufferSize(n int) (size, place int) {
	log := bits.Len(uint(n - 1)) // n is in (2^(log-1), 2^log]
	step := 1 << (log - 4)       // an eighth of 2^(log-1)
	steps := (n - 1) / step      // 8 to 15
	return (steps + 1) * step, (log-bits.Len(leastBuffer-1))*perDoubling + steps - 8
}

// newBuffer is n bytes of any content.
func newBuffer(n int) []byte {
	if n <= leastBuffer {
		return make([]byte, n)
	}
	size, place := bufferSize(n)
	if b, ok := recycled[place].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, size)
}

// Recycle gives back the data of a message that Recv has returned, which nobody may
// use after that. Data that is not given back is garbage some day, as anything.
func Recycle(data []byte) {
	if cap(data) <= leastBuffer {
		return
	}
	size, place := bufferSize(cap(data))
	if size != cap(data) || place >= len(recycled) {
		return // it is none of ours
	}
	data = data[:size]
	spoil(data)
	recycled[place].Put(&data)
}
