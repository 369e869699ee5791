package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// readAll reads the images. Peers are told meanwhile that more is coming, so that
// two sites that seed the same at the same time do not send it to each other.
func (s *seeding) readAll(ctx context.Context) (err error) {
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
	s.shelf, s.saved, s.saveEvery = im.seen.shelf(), time.Now(), s.g.noteEvery
	defer func() { err = errors.Join(err, s.finish(err)) }()
	for _, f := range s.files {
		s.task.update(func(v *StoreTask) { v.Phase = "reading " + f.Name })
		switch err := s.readFile(ctx, f); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errPool):
			return err
		case err != nil:
			s.broken = append(s.broken, f)
			s.problem(err)
		default:
			s.whole = append(s.whole, f)
			s.task.update(func(v *StoreTask) { v.Files++ })
		}
	}
	if len(s.whole) == 0 && len(s.problems) > 0 {
		return s.problems[0]
	}
	return nil
}

// errPool is why nothing more is read: the pool does not take it.
var errPool = errors.New("keeping what was read")

// finish brings what was read to disk, after an error as well, and notes it.
func (s *seeding) finish(err error) error {
	if errors.Is(err, errPool) {
		return nil // what was noted before stays
	}
	if err := s.g.images.pool.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errPool, err)
	}
	s.noteRead()
	return nil
}

// readFile reads what is not known of one image.
func (s *seeding) readFile(ctx context.Context, f ImageFile) (err error) {
	if s.shelf.at != s.g.images.pool.Generation() {
		s.shelf = s.g.images.seen.shelf()
	}
	was, known := s.g.images.seen.known(f, s.shelf)
	if known && was.whole() {
		s.take(was)
		s.task.update(func(v *StoreTask) { v.Total += was.Disk - f.Size })
		return nil
	}
	im, err := s.g.cfg.Images.Open(ctx, f.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	if im.Size() != f.Size { // a disk may be larger than its file
		s.task.update(func(v *StoreTask) { v.Total += im.Size() - f.Size })
	}
	r := &imageReading{s: s, im: im, before: s.task.snapshot().Done, imagePart: imagePart{ImageFile: f, disk: im.Size(), segments: map[uint64]bool{}}}
	if known && was.Disk == r.disk {
		r.resume(was)
	}
	defer func() {
		maps.Copy(s.segments, r.segments)
		s.unsaved = append(s.unsaved, r.imagePart)
	}()
	return r.run(ctx)
}

// take counts what was read of an image as read now.
func (s *seeding) take(was seenFile) (segments map[uint64]bool) {
	segments = map[uint64]bool{}
	s.shelf.list(was.Segments, segments)
	s.g.images.pool.Use(slices.Sorted(maps.Keys(segments)))
	maps.Copy(s.segments, segments)
	s.task.update(func(v *StoreTask) { v.Done, v.Before = v.Done+was.Done, v.Before+was.Done })
	return segments
}

// imagePart is how far an image was read.
type imagePart struct {
	ImageFile
	disk     int64           // bytes
	done     int64           // of its disk: all before is in the pool, or zero
	segments map[uint64]bool // of the pool, that have its pages
}

// An imageReading is one image that is read.
type imageReading struct {
	imagePart
	s      *seeding
	im     Image
	before int64 // bytes of other images that were read before
	told   int64 // of done
	asked  int64 // bytes of the disk, that were paid for

	pages, fresh int64 // that were not told yet
}

// resume goes on where an earlier reading was cut.
func (r *imageReading) resume(was seenFile) {
	r.segments = r.s.take(was)
	r.done, r.told = was.Done, was.Done
	r.im.From(was.Done)
}

func (r *imageReading) run(ctx context.Context) error {
	defer r.tell()
	for {
		block, done, err := r.im.Next(ctx)
		if errors.Is(err, io.EOF) {
			r.done = r.disk
			return nil
		}
		if err != nil {
			r.done = done
			return err
		}
		if block != nil {
			if err := r.add(block); err != nil {
				return err
			}
		}
		r.done = done
		if r.done-r.told >= 1<<20 {
			r.tell()
			if err := r.noteLate(); err != nil {
				return err
			}
		}
		if err := r.pay(ctx); err != nil {
			return err
		}
	}
}

// tell shows how far it is.
func (r *imageReading) tell() {
	r.s.task.update(func(v *StoreTask) {
		v.Pages, v.Fresh, v.Done = v.Pages+r.pages, v.Fresh+r.fresh, r.before+r.done
	})
	r.pages, r.fresh, r.told = 0, 0, r.done
}

// add brings a block to the pool.
func (r *imageReading) add(block []byte) error {
	segment, fresh, err := r.s.g.images.pool.Add(block)
	if err != nil {
		return fmt.Errorf("%w: %w", errPool, err)
	}
	if fresh && segment != r.s.filling { // so all others are complete, and r.done has not come to this one yet
		r.s.filling = segment
		if r.s.noteDue(1) {
			r.s.noteRead(r.imagePart)
		}
	}
	r.segments[segment] = true
	r.pages++
	if fresh {
		r.fresh++
	}
	return nil
}

// noteLate notes how far it is where no segment gets full, because most is in the pool already.
func (r *imageReading) noteLate() error {
	if !r.s.noteDue(6) {
		return nil
	}
	if err := r.s.g.images.pool.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errPool, err)
	}
	r.s.filling = 0
	r.s.noteRead(r.imagePart)
	return nil
}

// pay waits until the bound on reading permits more. The disk is asked for 1 MiB at a time.
func (r *imageReading) pay(ctx context.Context) error {
	n := r.im.Read() - r.asked
	r.asked += n
	if wait := r.s.pace.pause(time.Now(), n); wait > 0 {
		return pause(ctx, wait)
	}
	return nil
}

// noteDue tells whether it is time to note what was read, or n times as long.
func (s *seeding) noteDue(n time.Duration) bool { return time.Since(s.saved) >= n*s.saveEvery }

// noteRead notes what was read of images that are done with, and of those that are being read.
// All that they have in the pool is on disk.
func (s *seeding) noteRead(now ...imagePart) {
	begun, seen := time.Now(), s.g.images.seen
	s.shelf = seen.shelf()
	for _, r := range append(s.unsaved, now...) {
		seen.note(r.Name, seenFile{
			Size: r.Size, Changed: r.Changed, Touched: r.Touched, Noted: begun.UTC(),
			Disk: r.disk, Done: r.done, Segments: s.shelf.spans(r.segments),
		})
	}
	s.unsaved = nil
	if err := seen.save(); err != nil {
		s.g.log.Warn("which images were read is not noted; after a restart they are read again", "err", err)
	}
	s.g.cameFurther(s.task)
	s.saved = time.Now()
	s.saveEvery = max(s.g.noteEvery, noteShare*s.saved.Sub(begun))
}
