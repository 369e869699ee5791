package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Seed reads images of this site into its pool, and then brings what peers do not
// have to them, in the background of moves. Asking for the same again, after an abort or
// a failure, goes on where it was: what was read is not read again (seen.go), and what both hold
// does not cross twice. What a restart of the gateway has cut goes on by itself (seedagain.go).
func (g *Gateway) Seed(_ context.Context, r SeedRequest) (StoreTask, error) {
	if g.images.pool == nil {
		return StoreTask{}, g.noImages()
	}
	if err := r.check(); err != nil {
		return StoreTask{}, err
	}
	t, err := g.startTask(g.seedTask(r), &r, g.seedRun(r))
	if err != nil {
		return StoreTask{}, err
	}
	g.noteSeeds()
	return t.snapshot(), nil
}

// check refuses what makes no sense.
func (r SeedRequest) check() error {
	if len(r.Sources) == 0 {
		return fmt.Errorf("nothing to seed: %w", ErrInvalid)
	}
	for _, s := range r.Sources {
		if err := CheckSource(s); err != nil {
			return err
		}
	}
	for _, rate := range []int64{r.Rate, r.ReadRate} {
		if rate < 0 {
			return fmt.Errorf("rate of %d bits per second: %w", rate, ErrInvalid)
		}
	}
	return nil
}

// seedTask is what is shown of a seed at first.
func (g *Gateway) seedTask(r SeedRequest) StoreTask {
	return StoreTask{Kind: TaskSeed, Sources: r.Sources, ReadRate: cmp.Or(r.ReadRate, g.cfg.SeedReadRate)}
}

// seedRun is what it does.
func (g *Gateway) seedRun(r SeedRequest) taskRun {
	return func(ctx context.Context, t *storeTask) error {
		s := g.newSeeding(t)
		if err := s.list(ctx, r.Sources); err != nil {
			return err
		}
		return s.run(ctx, r)
	}
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
	whole    []ImageFile     // were read to their end
	broken   []ImageFile     // could not be read
	problems []error

	// While it reads, see seedread.go.
	shelf     *shelf      // what the pool has
	filling   uint64      // segment that takes new pages; 0 if none does
	unsaved   []imagePart // was read and is not noted yet
	saved     time.Time   // when something was noted last
	saveEvery time.Duration
	pace      readPace
}

func (g *Gateway) newSeeding(t *storeTask) *seeding {
	return &seeding{g: g, task: t, segments: map[uint64]bool{}, pace: readPace{rate: t.snapshot().ReadRate}}
}

// list finds out what there is to read.
func (s *seeding) list(ctx context.Context, sources []string) error {
	s.task.update(func(v *StoreTask) { v.Phase = "looking for images" })
	for _, source := range sources {
		files, err := s.g.cfg.Images.List(ctx, source)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			s.g.images.seen.forget(source, names(files))
		}
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

// names is a set of the names of images.
func names(files []ImageFile) map[string]bool {
	there := make(map[string]bool, len(files))
	for _, f := range files {
		there[f.Name] = true
	}
	return there
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
	s.g.cameFurther(s.task)
	s.task.update(func(v *StoreTask) { v.Phase = "sending to peers" })
	err := s.g.crossAll(ctx, s.task, slices.Sorted(maps.Keys(s.segments)), r)
	if len(s.problems) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d images could not be read, the first: %w", len(s.problems), len(s.files), s.problems[0]))
	}
	return err
}
