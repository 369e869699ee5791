package pages

import "encoding/binary"

// rng is splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014): one addition and one mix for each word, which matters in
// a guest without KVM.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return finish(uint64(*r))
}

func finish(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// mix makes one well-spread number of two.
func mix(a, b uint64) uint64 {
	return finish(finish(a+0x9e3779b97f4a7c15) ^ b)
}

// opcode is one instruction of Code: its bytes, of which some are operands.
type opcode struct {
	bits    uint64 // first byte lowest
	operand uint64 // mask of the operand's bits
	len     int
}

// tables makes what the kinds are built from.
func (s *Source) tables(r rng) {
	const letters = "etaoinsrhldcumfpgwybvkxjqz   .-_/=:"
	for i := range s.phrases {
		for j := range s.phrases[i] {
			s.phrases[i][j] = letters[r.next()%uint64(len(letters))]
		}
	}
	for i := range s.opcodes {
		n := 2 + int(r.next()%6) // x86 instructions are 4 bytes on average
		op := opcode{bits: r.next() & (1<<(8*n) - 1), len: n}
		if i%3 != 0 && n > 2 {
			op.operand = uint64(0xff) << (8 * (n - 1)) // a displacement of one byte
		}
		op.bits &^= op.operand
		s.opcodes[i] = op
	}
	for i := range s.idioms {
		for at := 0; at < len(s.idioms[i]); at += 8 {
			binary.LittleEndian.PutUint64(s.idioms[i][at:], r.next())
		}
	}
	for i := range s.words {
		s.words[i] = 0x00007f0000000000 | r.next()%64<<24 // where mappings begin
	}
	for i := range s.skew { // a square: the first values are much more likely
		s.skew[i] = uint8(i * i / 256)
	}
	n := 0
	for k, share := range shares() {
		for range share {
			s.deal[n] = Kind(k)
			n++
		}
	}
}

// text writes log lines: date, host, phrases and an identifier.
func (s *Source) text(dst []byte, r *rng) {
	const head = "2026-01-01 00:00:00.000 host app["
	clock := r.next()
	for at := 0; at < len(dst); {
		v := r.next()
		clock += v & 0x3ff
		var line [128]byte
		n := copy(line[:], head)
		digits(line[11:23], clock)
		n += copy(line[n:], s.phrases[v>>10&63][:])
		n += copy(line[n:], s.phrases[v>>16&63][:])
		if v>>22&1 == 1 {
			n += copy(line[n:], s.phrases[v>>23&63][:])
		}
		hex(line[n:n+8], uint32(v>>32))
		line[n+8] = '\n'
		at += copy(dst[at:], line[:n+9])
	}
}

// digits writes the clock over the digits of a time such as 00:00:00.000.
func digits(b []byte, clock uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == '0' {
			b[i] = '0' + byte(clock%10)
			clock /= 10
		}
	}
}

func hex(b []byte, v uint32) {
	for i := range b {
		b[i] = "0123456789abcdef"[v>>28]
		v <<= 4
	}
}

// heap writes objects of 64 bytes: a word is often as in the object before, else
// zero, a pointer, a small number, a string or random.
func (s *Source) heap(dst []byte, r *rng) {
	for at := 0; at < len(dst); at += 8 {
		v := r.next()
		var w uint64
		switch p := v % 32; {
		case p < 14 && at >= 64:
			w = binary.LittleEndian.Uint64(dst[at-64:])
		case p < 20: // stays zero
		case p < 24:
			w = s.words[v>>8&15] | v>>20&0xffff<<4
		case p < 29:
			w = v >> 8 & (1<<(4+v>>32&7) - 1)
		case p < 31:
			w = binary.LittleEndian.Uint64(s.phrases[v>>8&63][:8])
		default:
			w = finish(v)
		}
		binary.LittleEndian.PutUint64(dst[at:], w)
	}
}

// code writes sequences that occur again and again, such as prologues and
// calls, and single instructions between them.
func (s *Source) code(dst []byte, r *rng) {
	var tail [8]byte
	at := 0
	for at < len(dst) {
		v := r.next()
		at += copy(dst[at:], s.idioms[s.skew[v&0xff]][:16+v>>8&15])
		if v>>12&1 == 0 {
			at += copy(dst[at:], s.idioms[s.skew[v>>16&0xff]][:8+v>>24&15])
		}
		for v >>= 32; v != 0 && at < len(dst); v >>= 16 {
			op := &s.opcodes[s.skew[v&0xff]]
			w := op.bits | (v>>8&0xff)*0x0101010101010101&op.operand
			if at+8 <= len(dst) {
				binary.LittleEndian.PutUint64(dst[at:], w)
			} else {
				binary.LittleEndian.PutUint64(tail[:], w)
				copy(dst[at:], tail[:])
			}
			at += op.len
		}
	}
}

func random(dst []byte, r *rng) {
	for at := 0; at < len(dst); at += 8 {
		binary.LittleEndian.PutUint64(dst[at:], r.next())
	}
}
