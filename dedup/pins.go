package dedup

import "github.com/longhaul-project/longhaul/dedup/record"

// pins are the segments of one shelf that one batch reads or fills. Each is
// pinned once, so that most pages cost a look into a table and no atomic
// write. It belongs to one goroutine.
type pins struct {
	shelf   *shelf
	encoder bool
	lazy    bool       // segments are brought into memory later, by who reads them
	table   []*segment // by place in the shelf's ring; nil before the first
	list    []*segment
}

// get is segment id, pinned until the end of the batch, or nil when it is not
// to be had.
func (p *pins) get(id uint64) *segment {
	if p.table != nil {
		if g := p.table[id%uint64(len(p.table))]; g != nil && g.id == id {
			return g
		}
	}
	g := p.shelf.at(id)
	if g == nil || !g.pin(p.encoder) {
		return nil
	}
	if !p.lazy {
		p.shelf.fetch(g)
	}
	p.took(g)
	return g
}

// page finds a page by number: its segment, pinned, and its slot.
func (p *pins) page(n uint64) (*segment, int) {
	return p.get(n / record.SegmentPages), int(n % record.SegmentPages)
}

// took adds a segment that was pinned by its opening.
func (p *pins) took(g *segment) {
	if p.table == nil {
		p.table = make([]*segment, len(p.shelf.ring))
	}
	p.table[g.id%uint64(len(p.table))] = g
	p.list = append(p.list, g)
}

// release ends the batch and unpins.
func (p *pins) release() {
	unpin(p.list, p.shelf.memory)
	p.end()
}

// hand ends the batch, and appends the segments that it has pinned to list: they are the caller's.
func (p *pins) hand(list []*segment) []*segment {
	list = append(list, p.list...)
	p.end()
	return list
}

func (p *pins) end() {
	for _, g := range p.list {
		p.table[g.id%uint64(len(p.table))] = nil
	}
	clear(p.list)
	p.list = p.list[:0]
}

func unpin(list []*segment, m *tier) {
	for _, g := range list {
		g.unpin(m)
	}
}
