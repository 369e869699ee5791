package dedup

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/page/xbzrle"
)

// The primes of xxhash64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), and
// their inverses modulo 2^64.
const (
	xxPrime1 = 0x9e3779b185ebca87
	xxPrime2 = 0xc2b2ae3d27d4eb4f
	xxLanes  = 4
	xxStripe = 8 * xxLanes // bytes
)

// inverse is that of an odd number, by Newton's method.
func inverse(n uint64) uint64 {
	x := n
	for range 6 {
		x *= 2 - n*x
	}
	return x
}

// lane is the state of one of xxhash64's lanes after n stripes.
func lane(p []byte, i, n int) uint64 {
	var p1, p2 uint64 = xxPrime1, xxPrime2
	v := [xxLanes]uint64{p1 + p2, p2, 0, -p1}[i]
	for s := range n {
		v = bits.RotateLeft64(v+binary.LittleEndian.Uint64(p[s*xxStripe+8*i:])*p2, 31) * p1
	}
	return v
}

// collide gives p, a page, the fingerprint of q by other words in the last stripe
// of p. Each lane of xxhash64 can be steered anywhere by its last word.
func collide(p, q []byte) {
	var p1, p2 uint64 = xxPrime1, xxPrime2
	const stripes = page.Size / xxStripe
	for i := range xxLanes {
		want := bits.RotateLeft64(lane(q, i, stripes)*inverse(p1), -31)
		word := (want - lane(p, i, stripes-1)) * inverse(p2)
		binary.LittleEndian.PutUint64(p[(stripes-1)*xxStripe+8*i:], word)
	}
}

func TestCollide(t *testing.T) {
	p, q := make([]byte, page.Size), make([]byte, page.Size)
	fillRandom(p, 1)
	fillRandom(q, 2)
	if collide(p, q); fingerprint(p) != fingerprint(q) || bytes.Equal(p, q) {
		t.Errorf("fingerprints %x, %x", fingerprint(p), fingerprint(q))
	}
}

// A forger makes the pages of a hostile guest.
type forger struct {
	rng  *rand.Rand
	seed *rand.ChaCha8
	pool [512][]byte // pages made before
}

func newForger(seed uint64) *forger {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &forger{rng: rand.New(rand.NewPCG(seed, 21)), seed: rand.NewChaCha8(key)}
}

// old is a page made before, or nil.
func (f *forger) old() []byte { return f.pool[f.rng.IntN(len(f.pool))] }

// page makes a page: noise, one from before, one of the same fingerprint as one
// from before, one that resembles it, or parts of two.
func (f *forger) page() []byte {
	p := make([]byte, page.Size)
	q := f.old()
	kind := f.rng.IntN(16)
	if q == nil {
		kind = 0
	}
	switch kind {
	case 0, 1, 2:
		_, _ = f.seed.Read(p) // never fails
	case 3:
		for i := range p { // compressible, and with few anchors
			p[i] = byte(i / (1 + kind) * f.rng.IntN(2))
		}
	case 4: // blank, or nearly
		p[f.rng.IntN(page.Size)] = byte(f.rng.IntN(2))
	case 5, 6: // other content, the same fingerprint
		_, _ = f.seed.Read(p)
		collide(p, q)
	case 7, 8: // nearly the same content, and the same fingerprint
		copy(p, q)
		p[f.rng.IntN(page.Size-xxStripe)] ^= 1 << f.rng.IntN(8)
		collide(p, q)
	case 9: // the same fingerprint as a blank page, which is known everywhere
		_, _ = f.seed.Read(p)
		collide(p, zeroPage[:])
	case 10, 11:
		copy(p, q)
		for range 1 + f.rng.IntN(30) {
			p[f.rng.IntN(page.Size)]++
		}
	case 12:
		n := f.rng.IntN(page.Size)
		copy(p[copy(p, q[n:]):], q[:n]) // shifted
		if r := f.old(); r != nil {
			copy(p[f.rng.IntN(page.Size):], r)
		}
	default:
		copy(p, q)
	}
	f.pool[f.rng.IntN(len(f.pool))] = p
	return p
}

// item makes an item of which the pages are forged. before tells what the stream
// last said of an address.
func (f *forger) item(before map[uint64][]byte) page.Item {
	p, n := f.page(), uint64(f.rng.IntN(1024))
	space := uint32(1 + f.rng.IntN(2))
	key := n<<1 | uint64(space-1)
	old := before[key]
	switch kind := f.rng.IntN(64); {
	case kind < 2:
		before[key] = zeroPage[:]
		return zeroItem(space, n)
	case kind < 10 && old != nil:
		if diff := xbzrle.Append(nil, old, p); len(diff) > 0 && len(diff) <= page.Size {
			before[key] = p
			return diffItem(space, n, diff)
		}
	case kind < 12: // a difference to something else
		if q := f.old(); q != nil {
			if diff := xbzrle.Append(nil, q, p); len(diff) > 0 && len(diff) <= page.Size {
				return diffItem(space, n, diff)
			}
		}
	case kind < 14:
		c := append(bytes.Repeat([]byte{byte(n)}, f.rng.IntN(300)), p...)
		if q := f.old(); q != nil {
			c = append(c, q[:f.rng.IntN(page.Size)]...)
		}
		return page.Item{Kind: page.Chunk, Data: c}
	case kind == 14:
		return page.Item{Kind: page.Table, Data: p[:8*(1+f.rng.IntN(200))]}
	case kind == 15:
		return opaqueItem(p[:f.rng.IntN(page.Size)])
	}
	before[key] = p
	it := fullPage(space, n, p)
	switch f.rng.IntN(20) {
	case 0:
		it.Head = nil
	case 1:
		it.Addr = page.Addr{}
	}
	return it
}
