package dedup

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/longhaul-project/longhaul/dedup/record"
)

// An Outline is a catalog in short: a digest for each group of segments. Two ends
// that held the same when they parted find so at the price of 10 bytes for a
// gigabyte of content, and tell each other of the groups that differ only.
//
//	| Version (1) = 1 | Store (8) | Budget (uv) |
//	| Sent (uv) | a group for each |
//	| Received (uv) | a group for each |
//
//	group: | Number less the one after the group before (uv) | Digest (8) |
//
//	Digest  first 8 bytes of SHA-256 over the entries of the group, as in a
//	        catalog; a wrong match would cost bandwidth, as a lost segment does
type Outline struct {
	Store          uint64
	Budget         int64
	Sent, Received []Group
}

// Group is the segments whose numbers begin alike.
type Group struct {
	Number uint64 // of the segment, without its lower groupBits bits
	Digest [8]byte
}

// groupBits: 1024 segments, a gigabyte of pages, are a group.
const groupBits = 10

// Outline makes the outline of c.
func (c *Catalog) Outline() Outline {
	return Outline{Store: c.Store, Budget: c.Budget, Sent: groups(c.Sent), Received: groups(c.Received)}
}

// group is one group with its entries.
type group struct {
	Group
	entries []Entry
}

// grouped cuts entries into groups.
func grouped(all []Entry) (gs []group) {
	for len(all) > 0 {
		number, n := all[0].ID>>groupBits, 1
		for n < len(all) && all[n].ID>>groupBits == number {
			n++
		}
		sum := sha256.Sum256(appendEntries(nil, all[:n]))
		gs = append(gs, group{Group{number, [8]byte(sum[:8])}, all[:n]})
		all = all[n:]
	}
	return gs
}

func groups(all []Entry) (gs []Group) {
	for _, g := range grouped(all) {
		gs = append(gs, g.Group)
	}
	return gs
}

// Differs is the part of c that the peer cannot know from its own catalog: the
// groups whose digests its outline does not have, and whether there is such a
// group at either end.
func (c *Catalog) Differs(theirs Outline) (part Catalog, any bool) {
	part = Catalog{Store: c.Store, Budget: c.Budget}
	var a, b bool
	part.Sent, a = unlike(c.Sent, theirs.Received)
	part.Received, b = unlike(c.Received, theirs.Sent)
	return part, a || b
}

func unlike(ours []Entry, theirs []Group) (part []Entry, any bool) {
	there := make(map[Group]bool, len(theirs))
	for _, g := range theirs {
		there[g] = true
	}
	for _, g := range grouped(ours) {
		if there[g.Group] {
			delete(there, g.Group)
			continue
		}
		part, any = append(part, g.entries...), true
	}
	return part, any || len(there) > 0
}

// Complete makes the peer's catalog of its outline, of the part that it has told,
// and of ours, which has all other groups.
func (c *Catalog) Complete(theirs Outline, part Catalog) Catalog {
	return Catalog{
		Store: theirs.Store, Budget: theirs.Budget,
		Sent: complete(theirs.Sent, part.Sent, c.Received), Received: complete(theirs.Received, part.Received, c.Sent),
	}
}

func complete(theirs []Group, part, ours []Entry) (all []Entry) {
	same, told := map[Group][]Entry{}, map[uint64][]Entry{}
	for _, g := range grouped(ours) {
		same[g.Group] = g.entries
	}
	for _, g := range grouped(part) {
		told[g.Number] = g.entries
	}
	for _, g := range theirs {
		if entries, ok := same[g]; ok {
			all = append(all, entries...)
		} else {
			all = append(all, told[g.Number]...)
		}
	}
	return all
}

// Append appends the encoding of o to b.
func (o *Outline) Append(b []byte) []byte {
	b = append(b, catalogVersion)
	b = binary.BigEndian.AppendUint64(b, o.Store)
	b = binary.AppendUvarint(b, uint64(o.Budget))
	for _, gs := range [][]Group{o.Sent, o.Received} {
		b = binary.AppendUvarint(b, uint64(len(gs)))
		next := uint64(0)
		for _, g := range gs {
			b = append(binary.AppendUvarint(b, g.Number-next), g.Digest[:]...)
			next = g.Number + 1
		}
	}
	return b
}

// ParseOutline reads an outline, which is all of b.
func ParseOutline(b []byte) (o Outline, err error) {
	r := catalogReader{b: b}
	if v := r.byte(); r.err == nil && v != catalogVersion {
		return o, fmt.Errorf("%w: outline of version %d, this gateway knows %d", errCatalog, v, catalogVersion)
	}
	o.Store = r.uint64()
	o.Budget = int64(r.uvarint(1 << 60))
	o.Sent = r.groups()
	o.Received = r.groups()
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes follow it")
	}
	if r.err != nil {
		return Outline{}, r.err
	}
	return o, nil
}

// groupSize is the least size of a group in bytes.
const groupSize = 1 + 8

func (r *catalogReader) groups() (gs []Group) {
	n := r.uvarint(min(uint64(len(r.b))/groupSize, maxGroups))
	next := uint64(0)
	for range n {
		number := next + r.uvarint(record.MaxSegment>>groupBits)
		if number > record.MaxSegment/2>>groupBits {
			r.fail("group of no segment")
		}
		gs = append(gs, Group{number, [8]byte(r.take(8))})
		if r.err != nil {
			return nil
		}
		next = number + 1
	}
	return gs
}

// maxGroups bounds the groups of an outline: as many as a catalog has segments.
const maxGroups = MaxCatalog / entrySize >> groupBits
