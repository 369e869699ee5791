// Seeding measures what a seeded image saves of the first move of a VM: a stream is
// encoded and decoded (and compared) between two new stores, after nothing, after
// an image has crossed as `longhaul store seed` sends it, and with an image that
// only the destination has.
//
//	go run ./bench/seeding IMAGE STREAM
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/image"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: seeding IMAGE STREAM")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "seeding:", err)
		os.Exit(1)
	}
}

func run(img, stream string) error {
	for _, c := range []struct {
		name           string
		cross, claimed bool
	}{{"nothing known", false, false}, {"image seeded and sent before", true, false}, {"image at both sites, agreed before", true, true}, {"image at the destination only", false, true}} {
		p, err := newPair()
		if err == nil {
			err = p.measure(c.name, img, stream, c.cross, c.claimed)
		}
		p.close()
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// pair is two stores that have agreed, and the pool of the receiving end.
type pair struct {
	dir    string
	dirs   [2]*store.Dir
	stores [2]*dedup.Store
	pool   *dedup.Pool
}

func newPair() (p *pair, err error) {
	p = &pair{}
	if p.dir, err = os.MkdirTemp("/var/tmp", "seeding"); err != nil {
		return p, err
	}
	var libs [2]*dedup.Library
	for i := range libs {
		if p.dirs[i], err = store.Open(fmt.Sprintf("%s/%d", p.dir, i)); err != nil {
			return p, err
		}
		c := dedup.LibraryConfig{Memory: 256 << 20, Disk: 16 << 30}
		if i == 1 {
			if p.pool, err = dedup.OpenPool(p.dirs[1].Shelf("own"), dedup.PoolConfig{}); err != nil {
				return p, err
			}
			c.Elsewhere = p.pool.Find
		}
		if libs[i], err = dedup.OpenLibrary(p.dirs[i], c); err != nil {
			return p, err
		}
	}
	for i, l := range libs {
		if p.stores[i], err = l.Agree(libs[1-i].Catalog()); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *pair) close() {
	for _, s := range p.stores {
		if s != nil {
			s.Close()
		}
	}
	os.RemoveAll(p.dir)
}

func (p *pair) measure(name, img, stream string, cross, claimed bool) error {
	seeded := dedup.Counts{}
	if claimed {
		if err := p.fill(img); err != nil {
			return err
		}
	}
	if cross {
		ch := p.open()
		if err := ch.image(img); err != nil {
			return err
		}
		seeded = ch.enc.Stats()
	}
	ch := p.open()
	began := time.Now()
	if err := ch.stream(stream); err != nil {
		return err
	}
	c := ch.enc.Stats()
	fmt.Printf("%-36s seeding: %4d MB in %6.1f MB, %d hashes; the move: %.2f %% of %d MB left, %d pages: %d zero, %d known, %d hashes, %d changed, %d full; %.0f MB/s\n",
		name, seeded.Raw>>20, float64(seeded.Wire)/(1<<20), seeded.Claims, 100*float64(c.Wire)/float64(c.Raw), c.Raw>>20,
		c.Pages, c.Zero, c.Refs, c.Claims, c.Deltas, c.Literals, float64(c.Raw)/1e6/time.Since(began).Seconds())
	return nil
}

// fill puts the image into the pool of the receiving end, and tells the other.
func (p *pair) fill(name string) error {
	if err := blocks(name, func(b []byte) error { _, _, err := p.pool.Add(b); return err }); err != nil {
		return err
	}
	if err := p.pool.Flush(); err != nil {
		return err
	}
	for _, id := range p.pool.Segments() {
		var m dedup.Summary
		p.stores[1].Hints(&m, p.pool.Sums(id))
		p.stores[0].Hear(m)
	}
	return nil
}

func blocks(name string, use func([]byte) error) error {
	ctx := context.Background()
	im, err := image.Open(ctx, name)
	if err != nil {
		return err
	}
	defer im.Close()
	b := im.Blocks(0)
	for b.Next(ctx) {
		if err := use(b.Data()); err != nil {
			return err
		}
	}
	return b.Err()
}

// channel is one channel from the first store to the second.
type channel struct {
	enc  *dedup.Encoder
	dec  *dedup.Decoder
	want []byte // sent and not yet compared
}

func (p *pair) open() *channel {
	set := dedup.Setting{Codec: dedup.Zstd, Level: 3}
	return &channel{
		enc: p.stores[0].NewEncoder(dedup.EncoderConfig{Setting: set, PeerReady: true}),
		dec: p.stores[1].NewDecoder(dedup.DecoderConfig{Fetch: p.stores[0].Pages}),
	}
}

func (c *channel) image(name string) error {
	if err := blocks(name, func(b []byte) error { return c.add(page.Item{Kind: page.Full, Data: b}) }); err != nil {
		return err
	}
	return c.end()
}

func (c *channel) stream(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf, have := make([]byte, 2*page.MaxItem), 0
	var scan page.Scanner
	for {
		n, err := f.Read(buf[have:])
		have += n
		if scan == nil {
			scan, _ = vmstream.Recognise(buf[:have])
		}
		used := 0
		for {
			it, n := scan.Next(buf[used:have])
			if n == 0 {
				break
			}
			if err := c.add(it); err != nil {
				return err
			}
			used += n
		}
		have = copy(buf, buf[used:have])
		if errors.Is(err, io.EOF) {
			if have > 0 {
				if err := c.add(scan.Cut(buf[:have])); err != nil {
					return err
				}
			}
			return c.end()
		}
		if err != nil {
			return err
		}
	}
}

func (c *channel) add(it page.Item) error {
	it.Mark = 0
	c.want = append(append(c.want, it.Head...), it.Data...)
	if c.enc.Add(it) {
		return c.cut()
	}
	return nil
}

func (c *channel) end() error {
	err := c.cut()
	c.enc.Close()
	c.dec.Close()
	return err
}

var errOther = errors.New("the stream has changed")

func (c *channel) cut() error {
	for b := c.enc.Cut(); b != nil; b = c.enc.Cut() {
		msg, err := b.Compress()
		if err != nil {
			return err
		}
		x, err := dedup.Expand(msg)
		if err != nil {
			return err
		}
		raw, _, err := c.dec.Decode(nil, x)
		if err != nil {
			return err
		}
		if !bytes.Equal(raw, c.want[:len(raw)]) {
			return errOther
		}
		c.want = append(c.want[:0], c.want[len(raw):]...)
		c.enc.Acked(b.Seq)
	}
	return nil
}
