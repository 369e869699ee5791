package press

import (
	"encoding/binary"
	"errors"
)

const (
	runLeast  = 32             // bytes for which the model was right before it asks for a run
	skipLeast = 8              // bytes of a run,
	maxRun    = 1 << maxDigits // of them at most
	lookBack  = 32             // bytes that are compared before two places are taken for alike:
	alike     = 5              // of them at least,
	resumed   = 3              // or so many where the last run went on
	maxRight  = 255            // bytes for which the model was right; it counts no further
	placeBits = 16             // of the table of places
	placeStep = 4              // bytes from one place in a run to the next
)

// A Press compresses and expands blocks, one at a time. It has 4 MB of tables.
type Press struct {
	table  [contexts][1 << manySlots]slot
	single [256 * 17]slot          // by the last byte, and the half before
	weight [3 * 2][16]weights      // by how long the guess was right, and the half of a byte
	places [1 << placeBits]uint32  // behind where six bytes were seen last, by their hash
	trust  [16 + maxRight/8]chance // of guesses, by how long they were right
	asked  [maxRight/8 + 1]chance  // is there a run
	digits [maxDigits + 1]chance

	shift int
}

// New makes a Press.
func New() *Press { return new(Press) }

// Append appends the coded form of block to dst.
func (p *Press) Append(dst, block []byte) []byte {
	c := coder{out: dst}
	p.run(&c, block)
	c.end()
	return c.out
}

var errForm = errors.New("press: malformed block")

// Expand fills block with what coded stands for, which takes time in proportion to
// the size of block, whatever coded is. It does not keep coded.
func (p *Press) Expand(block, coded []byte) error {
	c := coder{in: coded, decode: true}
	p.run(&c, block)
	if !c.end() {
		return errForm
	}
	return nil
}

// reset forgets the last block, for one of n bytes.
func (p *Press) reset(n int) {
	d := slotDigits(n)
	p.shift = 32 - d
	for i := range p.table {
		clear(p.table[i][:1<<d])
	}
	for i := range p.single {
		p.single[i] = fresh
	}
	for i := range p.weight {
		for j := range p.weight[i] {
			p.weight[i][j] = weights{firstWeight, firstWeight, firstWeight, firstWeight, firstWeight}
		}
	}
	clear(p.places[:])
	for _, all := range [][]chance{p.trust[:], p.asked[:], p.digits[:]} {
		for i := range all {
			all[i] = even
		}
	}
}

// A trail is where in the block what came before has been met.
type trail struct {
	at    int  // the byte there that is expected next; 0: none
	right int  // how many bytes before it are those before the one to come
	asked bool // whether a run begins, of this trail
}

// run codes all of block.
func (p *Press) run(c *coder, block []byte) {
	p.reset(len(block))
	c.begin()
	var t trail
	for i := 0; i < len(block) && !c.short; {
		if t.right >= runLeast && !t.asked {
			if i += p.skip(c, block, i, &t); i == len(block) {
				return
			}
		}
		p.byte(c, block, i, &t)
		i++
		p.follow(block, i, &t)
	}
}

// recent is the eight bytes before i, the last one highest.
func recent(block []byte, i int) uint64 {
	if i >= 8 {
		return binary.LittleEndian.Uint64(block[i-8:])
	}
	var last [8]byte
	copy(last[8-i:], block[:i])
	return binary.LittleEndian.Uint64(last[:])
}

// skip codes whether a run begins at i, and the run. It returns its length.
func (p *Press) skip(c *coder, block []byte, i int, t *trail) int {
	t.asked = true
	n := 0
	if !c.decode {
		for n < maxRun && i+n < len(block) && block[i+n] == block[t.at+n] {
			n++
		}
	}
	run := uint32(0)
	if n >= skipLeast {
		run = 1
	}
	if c.counted(run, &p.asked[t.right/8]) == 0 {
		return 0
	}
	n = int(c.gamma(uint32(max(n-skipLeast+1, 1)), &p.digits)) + skipLeast - 1
	if n > len(block)-i {
		c.short = true
		return 0
	}
	if c.decode {
		for j := range n { // it may reach into what it makes
			block[i+j] = block[t.at+j]
		}
	}
	for j := max(i, 8); j < i+n; j += placeStep {
		*p.place(recent(block, j)) = uint32(j)
	}
	t.at, t.right = t.at+n, 0 // another byte follows, or the run would have gone on
	return n
}

// byte codes the byte at i.
func (p *Press) byte(c *coder, block []byte, i int, t *trail) {
	last := recent(block, i)
	h := hashes(block, i, last)
	var s choice
	s[0] = &p.single[last>>56*17]
	for k := range h {
		s[k+1] = find(p.table[k][:], h[k], p.shift)
	}
	g := guess{made: t.right > 0}
	w, want := 0, uint32(0)
	if g.made {
		want = uint32(block[t.at])
		w = 2
		g.trust = &p.trust[t.right&15]
		if t.right > 15 {
			w = 4
			g.trust = &p.trust[15+t.right/8]
		}
	}
	g.bits = want >> 4
	high := c.nibble(uint32(block[i])>>4, &s, g, &p.weight[w])
	s[0] = &p.single[last>>56*17+1+uint64(high)]
	for k := range h {
		s[k+1] = find(p.table[k][:], (h[k]+high+1)*0x9e3779b1, p.shift)
	}
	g.made, g.bits = g.made && want>>4 == high, want&15
	b := byte(high<<4 | c.nibble(uint32(block[i])&15, &s, g, &p.weight[w+1]))
	if t.right > 0 && byte(want) == b {
		t.right = min(t.right+1, maxRight)
	} else {
		t.right, t.asked = 0, false
	}
	if t.at > 0 {
		t.at++
	}
	if c.decode {
		block[i] = b
	}
}

// place is where the last six of the eight bytes recent were seen last.
func (p *Press) place(recent uint64) *uint32 { return &p.places[spread(recent>>16)>>(32-placeBits)] }

// follow finds the trail of what comes at i, if it has none.
func (p *Press) follow(block []byte, i int, t *trail) {
	if i < 8 {
		return
	}
	place := p.place(recent(block, i))
	at := int(*place)
	*place = uint32(i)
	if t.right > 0 {
		return
	}
	if n := alikeBefore(block, at, i); n >= alike {
		t.at, t.right = at, n
	} else if n := alikeBefore(block, t.at, i); n >= resumed {
		t.right = n
	}
}

// alikeBefore is how many bytes before a and b are the same, lookBack at most.
func alikeBefore(block []byte, a, b int) int {
	n := 0
	for n < min(a, lookBack) && block[a-1-n] == block[b-1-n] {
		n++
	}
	return n
}
