package inspect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/longhaul-project/longhaul/dedup"
)

// DefaultStore is the budget of a store in bytes, unless the options say
// another.
const DefaultStore = 1 << 30

// ErrEmpty means that there is not one byte to look at.
var ErrEmpty = errors.New("it is empty")

// Options of an Inspector. The zero value works.
type Options struct {
	// Store is the budget of each store in bytes, as dedup.Config has it.
	// Zero means DefaultStore. Six stores may be full at once, one for each
	// end of a pair for each setting, and twelve once a second capture is looked
	// at, or eight and sixteen with Press; each of them with half of the budget, for
	// pages go one way only.
	Store int64

	// Press looks at what the thinnest lines get as well, which takes 0.6 µs of a core for
	// each new byte.
	Press bool
}

// An Inspector looks at captures, one after the other: the moves of several
// VMs to the same peer. It belongs to one goroutine. The caller closes it.
type Inspector struct {
	store    int64
	files    uint32 // so far; what a store holds counts as one
	seen     contents
	settings []setting
	stores   []*pair // by setting, with what all captures so far have left
}

// A setting is a way of Longhaul to carry a capture.
type setting struct {
	method string
	codec  dedup.Setting
}

// settings that Longhaul is measured with.
func settings(o Options) []setting {
	all := []setting{
		{Longhaul1, dedup.Setting{Codec: dedup.Zstd, Level: 1}},
		{Longhaul3, dedup.Setting{Codec: dedup.Zstd, Level: 3}},
		{LonghaulFold, dedup.Setting{Codec: dedup.Fold}},
	}
	if o.Press {
		all = append(all, setting{LonghaulPress, dedup.Setting{Codec: dedup.Press}})
	}
	return all
}

// New makes an Inspector that has seen nothing.
func New(o Options) *Inspector {
	if o.Store == 0 {
		o.Store = DefaultStore
	}
	in := &Inspector{store: o.Store, seen: contents{newSample[uint32](maxContents)}, settings: settings(o)}
	for range in.settings {
		in.stores = append(in.stores, newPair(o.Store))
	}
	return in
}

// Know takes in what a store holds, before the first capture: the peer has it. It reads
// of the disk what near copies are found by, which takes about a second for each GiB of
// the Store that the options say, at most, and ends early with ctx.
func (in *Inspector) Know(ctx context.Context, v *dedup.View) error {
	in.files++
	v.Sums(func(sums []uint64) {
		for _, h := range sums {
			in.seen.add(max(h, 1), in.files)
		}
	})
	var g errgroup.Group
	for i := range in.stores {
		near, far, err := v.Pair(in.store)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		in.stores[i].close()
		in.stores[i] = &pair{near: near, far: far, held: true}
		g.Go(func() error {
			near.Warm(func() bool { return ctx.Err() != nil })
			return context.Cause(ctx)
		})
	}
	return g.Wait()
}

// Close lets go of the stores.
func (in *Inspector) Close() {
	for _, p := range in.stores {
		p.close()
	}
}

// Inspect looks at the capture that r gives, to its end. After an error the
// Inspector must not be used any more. It ends with the cause of ctx between
// two reads; a read that blocks is the reader's to end.
func (in *Inspector) Inspect(ctx context.Context, name string, r io.Reader) (File, error) {
	r, zipped, err := plain(r)
	if err != nil {
		return File{}, err
	}
	in.files++
	m, err := in.newMeasures()
	if err != nil {
		return File{}, err
	}
	defer m.close()
	c, packed := newCutter(bufio.NewReader(r))
	if err := pump(ctx, c, m.all()); err != nil {
		return File{}, err
	}
	if c.read == 0 {
		return File{}, ErrEmpty
	}
	if err := m.check(c.read); err != nil {
		return File{}, err
	}
	f := c.file
	f.Name, f.Gzip, f.Bytes = name, zipped, c.read
	if packed != nil && packed.n != c.read {
		f.Packed = packed.n
	}
	m.fill(&f)
	return f, nil
}

// pump reads a capture and gives each chunk to all, at once and while the next
// one is read.
func pump(ctx context.Context, c *cutter, all []func(*chunk) error) error {
	now, next := new(chunk), new(chunk)
	err := c.next(next, now)
	for err == nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var g errgroup.Group
		for _, write := range all {
			g.Go(func() error { return write(now) })
		}
		if !now.last {
			g.Go(func() error { return c.next(now, next) })
		}
		err = g.Wait()
		if err == nil && now.last {
			return nil
		}
		now, next = next, now
	}
	return err
}

// measures is all that is done with one capture.
type measures struct {
	pages          *pageCounter
	lz4            *whole
	zstd1, zstd3   *whole
	knowing, alone []*reducer // by setting; alone is empty for the first capture, which is alone
}

func (in *Inspector) newMeasures() (*measures, error) {
	m := &measures{pages: newPageCounter(in.seen, in.files), lz4: newLZ4()}
	var err error
	if m.zstd1, err = newZstd(1); err != nil {
		return nil, err
	}
	if m.zstd3, err = newZstd(3); err != nil {
		return nil, err
	}
	for i, set := range in.settings {
		m.knowing = append(m.knowing, in.stores[i].newReducer(set))
		if in.files > 1 {
			m.alone = append(m.alone, newPair(in.store).newReducer(set))
		}
	}
	return m, nil
}

func (m *measures) close() {
	for _, r := range append(m.knowing, m.alone...) {
		r.close()
	}
}

// all are the functions that take each chunk.
func (m *measures) all() []func(*chunk) error {
	all := []func(*chunk) error{m.pages.write, m.lz4.write, m.zstd1.write, m.zstd3.write}
	for _, r := range append(m.knowing, m.alone...) {
		all = append(all, func(c *chunk) error {
			if err := r.write(c); err != nil {
				return fmt.Errorf("reducing: %w", err)
			}
			return nil
		})
	}
	return all
}

// check makes sure that all n bytes were decoded and compared.
func (m *measures) check(n int64) error {
	for _, r := range append(m.knowing, m.alone...) {
		if r.raw != n {
			return fmt.Errorf("reducing: %w: %d bytes, want %d", ErrChanged, r.raw, n)
		}
	}
	return nil
}

// fill writes what was measured into f.
func (m *measures) fill(f *File) {
	f.Pages, f.Opaque = m.pages.result(), m.pages.opaque
	duplicates := Method{Name: Dedup, Left: m.pages.left(0)}
	if len(m.alone) > 0 {
		known := m.pages.left(f.Pages.Known)
		duplicates.Known = &known
	}
	f.Methods = []Method{
		{Name: LZ4, Left: int64(m.lz4.size)},
		{Name: Zstd1, Left: int64(m.zstd1.size)},
		{Name: Zstd3, Left: int64(m.zstd3.size)},
		duplicates,
	}
	for i, r := range m.knowing {
		got := Method{Name: r.method, Left: r.wire, Verified: true}
		if len(m.alone) > 0 {
			got.Known, got.Left = &r.wire, m.alone[i].wire
		}
		f.Methods = append(f.Methods, got)
		f.Evicted = f.Evicted || r.stores.near.Stats().Evicted > 0 || r.stores.near.Full()
	}
}
