package fast

// Window is how far behind the newest a datagram may come, in datagrams: 100 ms
// at 1 Gbit/s, which no path reorders by.
const Window = windowBits - blockBits

const (
	blockBits  = 64
	windowBits = 1 << 13
	blocks     = windowBits / blockBits
)

// A window knows which counters were there (RFC 6479): a ring of bits of which
// one block is always free, so that it moves on by whole blocks.
type window struct {
	next uint64 // highest counter, plus 1; 0: none yet
	bits [blocks]uint64
}

// fresh tells whether a counter may still come.
func (w *window) fresh(c uint64) bool {
	if c >= w.next {
		return true
	}
	return w.next-1-c < Window && w.bits[c/blockBits%blocks]&(1<<(c%blockBits)) == 0
}

// note says that a counter has come, which was fresh.
func (w *window) note(c uint64) {
	if c >= w.next {
		from, to := uint64(0), c/blockBits
		if w.next > 0 {
			from = (w.next-1)/blockBits + 1
		}
		if to >= blocks && from <= to-blocks { // all of them; also bounds the loop
			from = to - blocks + 1
		}
		for b := from; b <= to; b++ {
			w.bits[b%blocks] = 0
		}
		w.next = c + 1
	}
	w.bits[c/blockBits%blocks] |= 1 << (c % blockBits)
}
