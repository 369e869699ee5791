package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Seed reads images of this site into its pool, and then brings what peers do not
// have to them, in the background of moves. Reading the same again, after an
// abort or a restart, costs reading only: what is in the pool is not kept twice,
// and what both hold does not cross twice.
func (g *Gateway) Seed(_ context.Context, r SeedRequest) (StoreTask, error) {
	if g.images.pool == nil {
		return StoreTask{}, g.noImages()
	}
	if len(r.Sources) == 0 {
		return StoreTask{}, fmt.Errorf("nothing to seed: %w", ErrInvalid)
	}
	for _, s := range r.Sources {
		if err := CheckSource(s); err != nil {
			return StoreTask{}, err
		}
	}
	if r.Rate < 0 {
		return StoreTask{}, fmt.Errorf("rate of %d bits per second: %w", r.Rate, ErrInvalid)
	}
	t, err := g.startTask(StoreTask{Kind: TaskSeed, Sources: r.Sources}, func(ctx context.Context, t *storeTask) error {
		s := &seeding{g: g, task: t, segments: map[uint64]bool{}}
		if err := s.list(ctx, r.Sources); err != nil {
			return err
		}
		return s.run(ctx, r)
	})
	if err != nil {
		return StoreTask{}, err
	}
	return t.snapshot(), nil
}

// CheckSource refuses what cannot be seeded, and says what can.
func CheckSource(s string) error {
	if filepath.IsAbs(s) || strings.HasPrefix(s, "nbd://") || strings.HasPrefix(s, "nbd+unix://") {
		return nil
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return fmt.Errorf("%q: %q is no scheme to seed from; want nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH (neither with TLS) or an absolute path: %w", s, scheme, ErrInvalid)
	}
	return fmt.Errorf("%q is no absolute path, and no export of an NBD server: %w", s, ErrInvalid)
}

// A seeding is one round of reading images and of sending them to peers.
type seeding struct {
	g        *Gateway
	task     *storeTask
	files    []ImageFile
	segments map[uint64]bool // of the pool, that have a page of what was read
	read     []readFile      // whole
	broken   []ImageFile     // could not be read
	problems []error
}

// readFile is an image that was read, and where its pages are in the pool.
type readFile struct {
	ImageFile
	segments map[uint64]bool
}

// list finds out what there is to read.
func (s *seeding) list(ctx context.Context, sources []string) error {
	s.task.update(func(v *StoreTask) { v.Phase = "looking for images" })
	for _, source := range sources {
		files, err := s.g.cfg.Images.List(ctx, source)
		if err != nil {
			if len(files) == 0 {
				return err
			}
			s.problem(err)
		}
		s.files = append(s.files, files...)
	}
	if len(s.files) == 0 {
		return fmt.Errorf("no image in %s: %w", strings.Join(sources, ", "), ErrNotFound)
	}
	s.total()
	return nil
}

// total tells how much there is to read.
func (s *seeding) total() {
	var total int64
	for _, f := range s.files {
		total += f.Size
	}
	s.task.update(func(v *StoreTask) { v.Total = total })
}

// problem notes what does not keep the rest from being done.
func (s *seeding) problem(err error) {
	s.g.log.Warn("seeding", "err", err)
	s.problems = append(s.problems, err)
}

// run reads the images, when it is their turn, and sends them.
func (s *seeding) run(ctx context.Context, r SeedRequest) error {
	if err := s.readAll(ctx); err != nil {
		return err
	}
	s.task.update(func(v *StoreTask) { v.Phase = "sending to peers" })
	err := s.g.crossAll(ctx, s.task, slices.Sorted(maps.Keys(s.segments)), r)
	if len(s.problems) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d images could not be read, the first: %w", len(s.problems), len(s.files), s.problems[0]))
	}
	return err
}

// readAll reads the images. Peers are told meanwhile that more is coming, so that
// two sites that seed the same at the same time do not send it to each other.
func (s *seeding) readAll(ctx context.Context) error {
	im := &s.g.images
	im.busy.Add(1)
	defer im.busy.Add(-1)
	s.task.update(func(v *StoreTask) { v.Phase = "waiting for other images to be read" })
	select {
	case im.turn <- struct{}{}:
		defer func() { <-im.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for _, f := range s.files {
		s.task.update(func(v *StoreTask) { v.Phase = "reading " + f.Name })
		segments := map[uint64]bool{}
		err := s.readFile(ctx, f, segments)
		maps.Copy(s.segments, segments)
		switch {
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), im.pool.Flush())
		case errors.Is(err, errPool):
			return err
		case err != nil:
			s.broken = append(s.broken, f)
			s.problem(err)
		default:
			s.read = append(s.read, readFile{f, segments})
			s.task.update(func(v *StoreTask) { v.Files++ })
		}
	}
	if len(s.read) == 0 && len(s.problems) > 0 {
		return s.problems[0]
	}
	if err := im.pool.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errPool, err)
	}
	return nil
}

// errPool is why nothing more is read: the pool does not take it.
var errPool = errors.New("keeping what was read")

// readFile reads one image, and adds the segments that have its pages.
func (s *seeding) readFile(ctx context.Context, f ImageFile, segments map[uint64]bool) (err error) {
	im, err := s.g.cfg.Images.Open(ctx, f.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	before := s.task.snapshot().Done
	if im.Size() != f.Size { // a disk may be larger than its file
		s.task.update(func(v *StoreTask) { v.Total += im.Size() - f.Size })
	}
	var pages, fresh int64
	tell := func(done int64) {
		s.task.update(func(v *StoreTask) {
			v.Pages, v.Fresh, v.Done = v.Pages+pages, v.Fresh+fresh, before+done
		})
		pages, fresh = 0, 0
	}
	for told := int64(0); ; {
		block, done, err := im.Next(ctx)
		if errors.Is(err, io.EOF) {
			tell(im.Size())
			return nil
		}
		if err != nil {
			tell(done)
			return err
		}
		segment, isNew, err := s.g.images.pool.Add(block)
		if err != nil {
			return fmt.Errorf("%w: %w", errPool, err)
		}
		segments[segment] = true
		pages++
		if isNew {
			fresh++
		}
		if done-told >= 1<<20 {
			told = done
			tell(done)
		}
	}
}
