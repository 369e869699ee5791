package gateway

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/dedup/store"
)

// Images opens the templates, ISO files and disks of this site. Both methods may
// be called at any time, also at once.
type Images interface {
	// List names the images that a name stands for: the files of a directory, or
	// itself. What could be listed comes with the error.
	List(ctx context.Context, name string) ([]ImageFile, error)

	// Open opens one of them.
	Open(ctx context.Context, name string) (Image, error)
}

// ImageFile is one image.
type ImageFile struct {
	Name    string    // to open it by
	Size    int64     // of the file in bytes; 0 if that is not known
	Changed time.Time // when its content last changed; zero if that is not known
	Touched time.Time // when that or its permissions last changed, which nobody can set; zero if not known
}

// An Image is read from one place to its end. It belongs to one goroutine.
type Image interface {
	// Size of the disk in bytes.
	Size() int64

	// From has Next begin at a place of the disk: one that it has given as done before.
	From(done int64)

	// Next gives the next block of 4 KiB that is not zero, good until the next
	// call, and how many bytes of the disk are done with it. After a while of zeros it gives
	// none. io.EOF ends it.
	Next(ctx context.Context) (block []byte, done int64, err error)

	// Read is how many bytes were asked for so far of what the image lies on.
	Read() int64

	Close() error
}

// imagesDir is the store of a site's own content, among those of its peers. It is
// no name of a site.
const imagesDir = "_images"

// images is what this site has of its own, and what is done to keep it.
type images struct {
	pool  *dedup.Pool // nil: nothing can be seeded
	dir   *store.Dir
	seen  *seenImages
	turn  chan struct{} // one place: images are read one after the other
	busy  atomic.Int64  // seeds that read, or wait for their turn
	tasks storeTasks
}

// openImages opens the pool. A gateway that cannot serves moves without.
func (g *Gateway) openImages() {
	g.images.turn = make(chan struct{}, 1)
	if g.cfg.Images == nil || g.cfg.StoreDir == "" {
		return
	}
	dir, err := store.Open(filepath.Join(g.cfg.StoreDir, imagesDir))
	if err != nil {
		g.log.Error("no images can be seeded", "err", err)
		return
	}
	pool, err := dedup.OpenPool(dir.Shelf("own"), dedup.PoolConfig{Disk: g.cfg.StoreDisk, Logger: g.log})
	if err != nil {
		dir.Close()
		g.log.Error("no images can be seeded", "err", err)
		return
	}
	g.images.dir, g.images.pool = dir, pool
	if g.images.seen, err = openSeen(dir.Path(), pool); err != nil {
		g.log.Warn("which images were read is not known; they are read again", "err", err)
	}
}

// close writes what was read last.
func (im *images) close() error {
	if im.pool == nil {
		return nil
	}
	err := im.pool.Flush()
	if e := im.dir.Close(); err == nil {
		err = e
	}
	return err
}

// elsewhere finds a page that a peer claims we have: of our images, or in what
// other sites and we hold in common. Nothing is told of what tenants have, so that
// nobody can claim it.
func (g *Gateway) elsewhere(peer, tenant string) dedup.Elsewhere {
	if tenant != "" {
		return nil
	}
	return func(h uint64, is func(p []byte) bool) bool {
		if p := g.images.pool; p != nil && p.Find(h, is) {
			return true
		}
		for _, c := range g.others(peer) {
			if s := c.live.Load(); s != nil && s.Find(h, is) {
				return true
			}
		}
		return false
	}
}

// others are what we hold with the peers but one, for the default tenant.
func (g *Gateway) others(than string) (all []*common) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for h, c := range g.commons {
		if h.site != than && h.tenant == "" {
			all = append(all, c)
		}
	}
	return all
}

// noImages is why nothing can be seeded.
func (g *Gateway) noImages() error {
	return fmt.Errorf("this gateway keeps nothing on disk, so it cannot keep images: %w", ErrUnavailable)
}
