package press

// A slot has the chances of four bits after one context: of the first bit at 1, of
// the second at 2 or 3, and so on, by the bits before. At 0 is what tells the
// context from others in the same place.
type slot [16]chance

// fresh is a slot that has learned nothing.
var fresh = slot{0, even, even, even, even, even, even, even, even, even, even, even, even, even, even, even}

// contexts are those whose slots are found by a hash: the last two bytes, the last
// four, and those 8 and 16 bytes back, which stand in the same place of the words
// before. Two more, of three and of six bytes, would leave 1.5 per cent less and take
// half as much time again. To look at the place in the word as well, or at the last
// byte, makes the third one worse by 3 and by 5 per cent.
const contexts = 3

// Slots for each context: as many as a block has bytes, and not so many that they
// leave the caches of the processor by far.
const (
	fewSlots  = 10 // binary digits of their number
	manySlots = 15
)

// slotDigits is how many binary digits number the slots for a block of n bytes.
func slotDigits(n int) int {
	d := fewSlots
	for d < manySlots && 1<<d < n {
		d++
	}
	return d
}

// spread makes a hash of x: its upper digits are good.
func spread(x uint64) uint32 { return uint32(x * 0x9e3779b97f4a7c15 >> 32) }

// find is the slot of the hash h in a table of 2^(32-shift). Each context may be in
// either of two places, and takes that of the one that was seen less.
func find(table []slot, h uint32, shift int) *slot {
	at := h >> shift
	mark := chance(h) | 1
	s := &table[at]
	if s[0] == mark {
		return s
	}
	t := &table[at^1]
	if t[0] == mark {
		return t
	}
	if s[0] != 0 && (t[0] == 0 || t[1]&15 < s[1]&15) {
		s = t
	}
	*s = fresh
	s[0] = mark
	return s
}

// A choice is the slots that foretell half a byte: that of the last byte alone, which
// has a table without marks, and those of the contexts.
type choice [contexts + 1]*slot

// hashes are those of the contexts of the byte at i of block, of which recent is the
// eight bytes before, the last one highest.
func hashes(block []byte, i int, recent uint64) (h [contexts]uint32) {
	h[0] = contextHash(recent>>48, 0)
	h[1] = contextHash(recent>>32, 1)
	var fields uint64 // zeros stand before the block
	if i >= 8 {
		fields = uint64(block[i-8])
	}
	if i >= 16 {
		fields |= uint64(block[i-16]) << 8
	}
	h[2] = contextHash(fields, 2)
	return h
}

// contextHash tells contexts of different kinds apart.
func contextHash(x uint64, kind int) uint32 { return spread(x + uint64(kind+1)*0x517cc1b727220a95) }

// A guess is what is expected of a byte, or half of one.
type guess struct {
	made  bool
	bits  uint32
	trust *chance // that it is right
}
