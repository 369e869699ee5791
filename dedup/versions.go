package dedup

import "github.com/longhaul-project/longhaul/internal/page"

// Bounds of a versions table. They are part of the format: both ends must
// forget the same addresses. 16384 chunks of 1024 pages are 64 MiB of table
// at worst and 64 GiB of guest when it is dense, more than a store remembers.
const (
	chunkPages = 1024
	maxChunks  = 16384
)

// versions remembers which page last came for an address. It grows with the
// addresses used, up to a bound that no input can pass.
type versions struct {
	chunks map[chunkKey]*[chunkPages]handle
	last   *[chunkPages]handle // chunk of lastKey; nil before the first
	key    chunkKey
	none   chunkKey // a chunk that cleared has found to be not there; of space 0 if there is none
}

type chunkKey struct {
	space uint32
	chunk uint64
}

// at is the place for the version of a, or nil if it is not remembered: the
// address is unknown or the table is full.
func (v *versions) at(a page.Addr) *handle {
	if a.Space == 0 {
		return nil
	}
	n := a.Offset / page.Size
	key := chunkKey{a.Space, n / chunkPages}
	if v.last == nil || v.key != key {
		c := v.chunks[key]
		if c == nil {
			if len(v.chunks) >= maxChunks {
				return nil
			}
			if v.chunks == nil {
				v.chunks = make(map[chunkKey]*[chunkPages]handle)
			}
			if v.none == key {
				v.none = chunkKey{}
			}
			c = new([chunkPages]handle)
			v.chunks[key] = c
		}
		v.key, v.last = key, c
	}
	return &v.last[n%chunkPages]
}

// blank is the version of a page of zeros, of which no store holds anything. No
// page has this number: segments begin with 1. When numbers have come around,
// after 8 TiB, one page is taken for blank: by both ends, so all that comes of
// it is that it is sent in full when it comes again.
const blank handle = 1

// cleared notes that a page of zeros has come for a.
func (v *versions) cleared(a page.Addr) {
	key := chunkKey{a.Space, a.Offset / page.Size / chunkPages}
	if a.Space == 0 || key == v.none {
		return // nothing has come for it, so that nothing is remembered either
	}
	if key != v.key && v.chunks[key] == nil {
		v.none = key
		return
	}
	if at := v.at(a); *at != 0 {
		*at = blank
	}
}
