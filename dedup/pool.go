package dedup

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/dedup/record"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
)

// PoolConfig says how much a pool may keep. The zero value works.
type PoolConfig struct {
	// Disk bounds the pages on disk in bytes. Zero means DefaultDisk.
	Disk int64
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// A Pool is what a site has of its own: the pages of its templates, ISO files and
// disk images, each of them once. No peer holds it in common with us: its pages
// are sent to peers, or agreed on with those that have the same ones (Elsewhere).
//
// It lives on disk, in segments like those of a store, with an index in memory
// of 22 to 24 bytes for each page. When it is full the segment goes that was used
// longest ago. All methods are safe for concurrent use.
type Pool struct {
	disk *store.Shelf
	max  int // segments
	log  *slog.Logger

	damaged, evicted, hits atomic.Int64

	mu       sync.Mutex // guards what follows; held while a segment is read or written
	segments map[uint64]*pooled
	order    []uint64 // numbers of segments, ascending
	next     uint64   // number of the next segment
	saved    uint64   // rises with each segment; begins anywhere
	clock    uint64   // rises with each use
	index    index
	open     *pooled // being filled; nil if none is
	filling  *slab   // its pages
	cache    [poolCache]cached
}

// pooled is one segment of a pool.
type pooled struct {
	store.Header
	used uint64 // clock when it was last used
}

// cached is the pages of a segment in memory.
type cached struct {
	g    *pooled
	mem  *slab
	used uint64
}

// poolCache is how many segments of a pool are in memory: what several channels
// read at a time, in 4 MiB.
const poolCache = 4

// OpenPool reads what the shelf holds. Damaged segments are removed.
func OpenPool(shelf *store.Shelf, c PoolConfig) (*Pool, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	most := cmp.Or(c.Disk, DefaultDisk) / slabSize
	p := &Pool{
		disk: shelf, max: int(min(max(most, minShelf), maxShelf)), log: c.Logger,
		segments: map[uint64]*pooled{}, next: 1, saved: rand.Uint64() >> 1,
	}
	all, removed, err := shelf.List()
	if err != nil {
		return nil, fmt.Errorf("opening the pool: %w", err)
	}
	if removed > 0 {
		c.Logger.Info("pool of images: damaged segments removed", "segments", removed)
		p.damaged.Add(int64(removed))
	}
	pages := record.SegmentPages
	for _, h := range all {
		pages += len(h.Sums)
	}
	p.index.table.Store(newIndexTable(pages))
	for _, h := range all {
		p.admit(&pooled{Header: h})
	}
	for len(p.order) > p.max {
		p.evict()
	}
	return p, nil
}

// admit lists a segment.
func (p *Pool) admit(g *pooled) {
	p.segments[g.ID] = g
	p.order = append(p.order, g.ID)
	p.next = max(p.next, g.ID+1)
	for i, h := range g.Sums {
		p.index.put(h, poolHandle(g, i))
	}
}

func poolHandle(g *pooled, slot int) handle {
	return handle((firstNumber(g.ID) + uint64(slot)) & numberMask)
}

// Add keeps a page, unless the pool has it; fresh tells that it had not. It
// returns the number of the segment that has it, 0 for a zero page, which need not
// be kept. Pages that were added together lie together.
func (p *Pool) Add(b []byte) (segment uint64, fresh bool, err error) {
	if isZero(b) {
		return 0, false, nil
	}
	h := fingerprint(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.find(h, func(q []byte) bool { return bytes.Equal(b, q) }); g != nil {
		return g.ID, false, nil
	}
	if p.open == nil {
		p.begin()
	}
	g := p.open
	copy(p.filling[len(g.Sums)*page.Size:], b)
	g.Sums = append(g.Sums, h)
	p.index.put(h, poolHandle(g, len(g.Sums)-1))
	if len(g.Sums) == record.SegmentPages {
		return g.ID, true, p.save()
	}
	return g.ID, true, nil
}

// begin opens a segment. The caller holds mu.
func (p *Pool) begin() {
	if n := (len(p.order) + 1) * record.SegmentPages; p.index.table.Load().tight(n) {
		x := newIndexTable(n)
		x.fill(p.index.table.Load())
		p.index.table.Store(x)
	}
	if p.filling == nil {
		p.filling = new(slab)
	}
	p.open = &pooled{Header: store.Header{ID: p.next, Birth: rand.Uint64() | 1}}
	p.next++
}

// Flush brings to disk what was added last.
func (p *Pool) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return nil
	}
	return p.save()
}

// save ends the open segment. What cannot be written is not kept. The caller
// holds mu.
func (p *Pool) save() error {
	g := p.open
	p.open = nil
	for len(p.order) >= p.max || len(p.order) > 0 && g.ID-p.order[0] >= maxShelf {
		p.evict()
	}
	if err := p.disk.Put(g.Header, p.filling[:len(g.Sums)*page.Size]); err != nil {
		return fmt.Errorf("pool of images: %w", err)
	}
	p.use(g)
	p.segments[g.ID] = g
	p.order = append(p.order, g.ID)
	p.saved++
	return nil
}

func (p *Pool) use(g *pooled) {
	p.clock++
	g.used = p.clock
}

// evict removes the segment that was used longest ago. The caller holds mu.
func (p *Pool) evict() {
	oldest := slices.MinFunc(p.order, func(a, b uint64) int { return cmp.Compare(p.segments[a].used, p.segments[b].used) })
	p.drop(oldest)
	p.evicted.Add(1)
}

// drop removes a segment. The caller holds mu.
func (p *Pool) drop(id uint64) {
	g := p.segments[id]
	delete(p.segments, id)
	i, _ := slices.BinarySearch(p.order, id)
	p.order = slices.Delete(p.order, i, i+1)
	for i := range p.cache {
		if p.cache[i].g == g {
			p.cache[i].g = nil
		}
	}
	if err := p.disk.Remove(id); err != nil {
		p.log.Debug("pool of images", "err", err)
	}
}

// Find is an Elsewhere.
func (p *Pool) Find(h uint64, is func(p []byte) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.find(h, is) != nil
	if found {
		p.hits.Add(1)
	}
	return found
}

// find is the segment that has a page; nil if none has. The caller holds mu.
func (p *Pool) find(h uint64, is func(p []byte) bool) *pooled {
	first, second := p.index.candidates(h)
	for _, slots := range [2][]atomic.Uint64{first, second} {
		for i := range slots {
			v := slots[i].Load()
			if v>>32 != h>>32 || v == 0 {
				continue
			}
			g, slot := p.at(handle(v))
			if g == nil || g.Sums[slot] != h {
				continue
			}
			mem := p.load(g)
			if mem == nil || !is(mem[slot*page.Size:(slot+1)*page.Size:(slot+1)*page.Size]) {
				continue
			}
			p.use(g)
			return g
		}
	}
	return nil
}

// at is the segment and slot that a handle means; nil when it has gone.
func (p *Pool) at(v handle) (*pooled, int) {
	first := p.next
	if len(p.order) > 0 {
		first = p.order[0]
	}
	if p.open != nil {
		first = min(first, p.open.ID)
	}
	low := firstNumber(first)
	n := low + (uint64(v)-low)&numberMask
	id, slot := n/record.SegmentPages, int(n%record.SegmentPages)
	g := p.segments[id]
	if p.open != nil && p.open.ID == id {
		g = p.open
	}
	if g == nil || slot >= len(g.Sums) {
		return nil, 0
	}
	return g, slot
}

// load is the pages of a segment, until mu is given back; nil when they cannot be
// read. The caller holds mu.
func (p *Pool) load(g *pooled) *slab {
	if g == p.open {
		return p.filling
	}
	c := &p.cache[0]
	for i := range p.cache {
		if p.cache[i].g == g {
			c = &p.cache[i]
			break
		}
		if p.cache[i].used < c.used {
			c = &p.cache[i]
		}
	}
	p.clock++
	c.used = p.clock
	if c.g == g {
		return c.mem
	}
	if c.mem == nil {
		c.mem = new(slab)
	}
	c.g = nil
	if err := p.disk.Load(&g.Header, c.mem[:]); err != nil {
		p.log.Warn("pool of images", "err", err)
		p.damaged.Add(int64(len(g.Sums)))
		p.drop(g.ID)
		return nil
	}
	c.g = g
	return c.mem
}

// Generation rises when a segment is added. It begins anywhere.
func (p *Pool) Generation() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saved
}

// Segments lists the segments that are complete, by number.
func (p *Pool) Segments() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.order)
}

// Births lists the segments that are complete, by number, and what tells each from another
// that had its number before.
func (p *Pool) Births() (ids, births []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.order {
		births = append(births, p.segments[id].Birth)
	}
	return slices.Clone(p.order), births
}

// Use counts these segments as used now, as if their pages had been added once more.
func (p *Pool) Use(ids []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		if g := p.segments[id]; g != nil {
			p.use(g)
		}
	}
}

// Sums are the fingerprints of a segment's pages; nil when it has gone. They may
// not be changed.
func (p *Pool) Sums(id uint64) []uint64 {
	if h := p.header(id); h != nil {
		return h.Sums
	}
	return nil
}

// header is that of a segment that is complete; nil when it has gone.
func (p *Pool) header(id uint64) *store.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.segments[id]; g != nil {
		return &g.Header
	}
	return nil
}

// Read reads all pages of a segment into mem, and returns the fingerprints of
// those that are what they were; 0 stands for one that is not. It is nil when the
// segment has gone.
func (p *Pool) Read(id uint64, mem *[slabSize]byte) []uint64 {
	h := p.header(id)
	if h == nil || p.disk.Load(h, mem[:]) != nil {
		return nil
	}
	sums := slices.Clone(h.Sums)
	for i, h := range sums {
		if fingerprint(mem[i*page.Size:(i+1)*page.Size]) != h {
			sums[i] = 0
		}
	}
	return sums
}

// PoolStats is what a pool holds.
type PoolStats struct {
	Budget   int64 // bytes of pages that may be held
	Bytes    int64 // bytes of pages that are held
	Pages    int64
	Segments int64
	Memory   int64 // bytes of index and fingerprints
	Hits     int64 // pages that peers claimed to be here, and were
	Evicted  int64 // segments that made room for others
	Damaged  int64 // pages found lost or rotten
}

// Stats tells what the pool holds.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := PoolStats{
		Budget: int64(p.max) * slabSize, Segments: int64(len(p.order)),
		Hits: p.hits.Load(), Evicted: p.evicted.Load(), Damaged: p.damaged.Load(),
	}
	for _, g := range p.segments {
		s.Pages += int64(len(g.Sums))
	}
	s.Bytes = s.Pages * page.Size
	s.Memory = int64(len(p.index.table.Load().slots))*8 + s.Pages*8
	return s
}
