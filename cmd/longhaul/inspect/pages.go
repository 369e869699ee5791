package inspect

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/page/xbzrle"
)

// Limits of what is followed, in pages.
const (
	maxContents = 8 << 20  // 32 GiB of pages that differ, 30 bytes each
	maxVersions = 8 << 20  // a guest of 32 GiB, 30 bytes each
	maxBases    = 64 << 10 // 256 MiB
)

// little is the number of words of 8 bytes below which a change is little; it
// is where dedup stops looking for a better base.
const little = 64

// contents are the contents seen so far: fingerprint to the number of the
// last capture that had it, from 1; what a store holds is the first of them. All
// captures share them.
type contents struct{ *sample[uint32] }

// add notes that a capture, or what comes before all of them, has a content.
func (c contents) add(h uint64, file uint32) {
	if c.weight(h) > 0 {
		c.put(h, file)
	}
}

// pageCounter counts the pages of a capture.
type pageCounter struct {
	seen     contents
	file     uint32
	versions *sample[uint64] // page of the guest to the fingerprint of what was last sent; 0: zero
	bases    *sample[[]byte] // … to its bytes, if they are not zero

	n        Pages
	repeated int64 // pages that are not zero and whose content came before
	opaque   int64 // bytes
	heads    int64 // bytes of items with a page, besides its content
}

func newPageCounter(seen contents, file uint32) *pageCounter {
	p := &pageCounter{seen: seen, file: file}
	p.forget()
	return p
}

// forget is called between two migrations: what is sent now is not sent again.
func (p *pageCounter) forget() {
	p.versions, p.bases = newSample[uint64](maxVersions), newSample[[]byte](maxBases)
}

// write counts the items of a chunk.
func (p *pageCounter) write(c *chunk) error {
	from := 0
	for _, at := range append(c.begins, len(c.items)) {
		for _, it := range c.items[from:at] {
			p.item(it)
		}
		if from = at; at < len(c.items) {
			p.forget()
		}
	}
	return nil
}

func (p *pageCounter) item(it page.Item) {
	content := it.Data
	switch it.Kind {
	case page.Full:
		p.heads += int64(len(it.Head))
		if zero(content) {
			content = nil
		}
	case page.Zero:
		p.heads += int64(it.Len())
		content = nil
	case page.XBZRLE:
		p.heads += int64(it.Len())
		p.difference(it)
		return
	default:
		p.opaque += int64(it.Len())
		return
	}
	p.n.All++
	var h uint64
	if content == nil {
		p.n.Zero++
	} else {
		h = max(xxhash.Sum64(content), 1)
		p.content(h)
	}
	if it.Addr.Space > 0 {
		p.version(key(it.Addr), h, content)
	}
}

// difference counts a page that QEMU sent as what has changed. Its content is
// followed if that before it was kept whole.
func (p *pageCounter) difference(it page.Item) {
	p.n.All++
	p.n.Differences++
	if it.Addr.Space == 0 || len(it.Data) < 3 {
		return
	}
	k := key(it.Addr)
	var blank, next [page.Size]byte
	base := p.bases.m[k]
	last, sent := p.versions.m[k]
	if sent && last == 0 {
		base = blank[:]
	}
	if base != nil && xbzrle.Apply(next[:], base, it.Data[3:]) == nil {
		p.version(k, max(xxhash.Sum64(next[:]), 1), next[:])
	} else if sent { // it has changed, nobody knows into what
		p.n.ResentChanged += p.versions.weight(k)
		p.versions.put(k, max(xxhash.Sum64(it.Data), 1))
	}
}

// content counts what is not zero by whether it was seen before.
func (p *pageCounter) content(h uint64) {
	w := p.seen.weight(h)
	if w == 0 {
		return
	}
	switch last := p.seen.m[h]; last {
	case p.file:
		p.repeated += w
		return
	case 0:
	default:
		p.n.Known += w
	}
	p.n.Distinct += w
	p.seen.put(h, p.file)
}

// version compares a page with what was last sent of it.
func (p *pageCounter) version(k, h uint64, content []byte) {
	w := p.versions.weight(k)
	if w == 0 {
		return
	}
	last, sent := p.versions.m[k]
	switch {
	case sent && last != h:
		p.n.ResentChanged += w
		p.change(k, last, content)
	case sent && h != 0:
		p.n.ResentSame += w
	}
	if !sent || last != h {
		p.versions.put(k, h)
	}
	if content != nil && p.bases.weight(k) > 0 {
		p.bases.put(k, append(p.bases.m[k][:0], content...))
	}
}

// change counts a changed page if little of it has changed.
func (p *pageCounter) change(k, last uint64, content []byte) {
	w := max(p.bases.weight(k), p.versions.weight(k)) // who follows fewer pages
	if p.bases.weight(k) == 0 {
		return
	}
	var blank [page.Size]byte
	base := blank[:]
	if last != 0 {
		base = p.bases.m[k]
	}
	if content == nil {
		content = blank[:]
	}
	if differing(base, content) < little {
		p.n.ChangedLittle += w
	}
}

// result is what was counted.
func (p *pageCounter) result() Pages {
	n := p.n
	// Samples differ: what cannot be may come out by chance.
	n.Duplicate = max(p.repeated-n.ResentSame, 0)
	n.ChangedLittle = min(n.ChangedLittle, n.ResentChanged)
	n.Sampled = p.seen.level > 0 || p.versions.level > 0
	return n
}

// reference is what a page costs that the peer can find by itself, in bytes.
const reference = 8

// left is how many bytes dedup alone leaves, if the peer has known of the
// distinct pages.
func (p *pageCounter) left(known int64) int64 {
	again := p.repeated + known
	return p.opaque + p.heads + (p.n.Distinct-known)*page.Size + again*reference
}

// key packs an address: vmstream numbers at most 4096 blocks from 1 on, and
// the number of a page has at most 52 bits.
func key(a page.Addr) uint64 { return uint64(a.Space-1)<<52 | a.Offset/page.Size }

func zero(b []byte) bool {
	var blank [page.Size]byte
	return len(b) <= len(blank) && bytes.Equal(b, blank[:len(b)])
}

// differing counts the words of 8 bytes in which two pages differ, and stops
// at little.
func differing(a, b []byte) (n int) {
	for i := 0; i+8 <= min(len(a), len(b)) && n < little; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			n++
		}
	}
	return n
}
