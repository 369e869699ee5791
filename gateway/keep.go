package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
)

// keepEvery is how often the directories of the config are looked at. That costs
// a stat of each file.
const keepEvery = 30 * time.Second

// settleTime is how old the last change of a file has to be: one that is being
// written is read when it is whole.
const settleTime = 10 * time.Second

// longestPause is how long a peer that does not take images is left alone at most.
const longestPause = 15 * time.Minute

// A keeper keeps the directories of the config seeded: it looks for files that are
// new or have changed, by size and time, and for those of which the pool has lost
// something, to a rotten disk say. What was of a file that is gone makes room in the
// pool some day.
type keeper struct {
	g      *Gateway
	seen   *seenImages
	failed map[string]ImageFile // could not be read; tried again when they change
	at     map[string][16]byte  // lives of the peers that have what was read
	sum    uint64               // of what that was
	told   string               // the last problem, which is not told again and again

	full  time.Duration // before files are read again, since the pool took no more
	again time.Time     // when they are

	pause time.Duration // before a peer that could not be brought up to date is tried again
	after time.Time     // when it is
}

// same tells whether nobody has touched a file in between.
func (f ImageFile) same(g ImageFile) bool {
	return f.Name == g.Name && f.Size == g.Size && f.Changed.Equal(g.Changed) && f.Touched.Equal(g.Touched)
}

// settled tells whether nobody has touched a file for a while.
func (f ImageFile) settled(while time.Duration) bool {
	at := f.Touched
	if at.IsZero() {
		at = f.Changed
	}
	return time.Since(at) >= while
}

// keepSeeded runs until ctx ends.
func (g *Gateway) keepSeeded(ctx context.Context) {
	k := &keeper{g: g, seen: g.images.seen, failed: map[string]ImageFile{}}
	tick := time.NewTicker(g.keepEvery)
	defer tick.Stop()
	for {
		k.round(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// round reads what has changed, and sends what a peer does not have: also what was read by
// hand.
func (k *keeper) round(ctx context.Context) {
	changed, err := k.changed(ctx)
	if err != nil && ctx.Err() == nil && err.Error() != k.told {
		k.told = err.Error()
		k.g.log.Warn("directory of images", "err", err)
	}
	at := k.lives()
	if all, kept := k.seen.in(k.g.cfg.SeedDirs); len(changed) == 0 &&
		(kept == 0 || k.g.cfg.SeedLocal || k.have(at, sumOfSpans(all)) || time.Now().Before(k.after)) {
		return
	}
	done := make(chan struct{})
	_, err = k.g.startTask(k.g.seedTask(SeedRequest{Sources: k.g.cfg.SeedDirs}), nil, func(ctx context.Context, t *storeTask) error {
		defer close(done)
		s := k.g.newSeeding(t)
		s.files = changed
		s.total()
		sum, err := k.seed(ctx, s)
		if k.pause = min(max(2*k.pause, k.g.keepEvery), longestPause); err == nil || len(s.problems) > 0 {
			k.at, k.sum, k.pause = at, sum, 0
		}
		k.after = time.Now().Add(k.pause)
		if k.full = min(max(2*k.full, k.g.keepEvery), longestPause); !errors.Is(err, errPool) {
			k.full = 0
		}
		k.again = time.Now().Add(k.full)
		return err
	})
	if err == nil { // else there are too many tasks; the next round
		<-done // ends with ctx
	}
}

// seed reads the files of s, and sends what all files have: also when the disk of this site
// takes no more of them. sum is of what it has sent.
func (k *keeper) seed(ctx context.Context, s *seeding) (sum uint64, err error) {
	var full error
	if len(s.files) > 0 {
		err := s.readAll(ctx)
		if errors.Is(err, errPool) {
			full, err = err, nil
		}
		for _, f := range s.broken {
			k.failed[f.Name] = f
		}
		for _, f := range s.whole {
			delete(k.failed, f.Name)
		}
		if err != nil {
			return 0, err
		}
	}
	s.task.update(func(v *StoreTask) { v.Phase = "sending to peers" })
	all, _ := k.seen.in(k.g.cfg.SeedDirs)
	err = errors.Join(full, k.g.crossAll(ctx, s.task, k.segments(all), SeedRequest{Local: k.g.cfg.SeedLocal}))
	if len(s.problems) > 0 {
		err = errors.Join(err, fmt.Errorf("%d images could not be read, the first: %w", len(s.problems), s.problems[0]))
	}
	return sumOfSpans(all), err
}

// segments are those of the pool that have pages of the files.
func (k *keeper) segments(all []span) []uint64 {
	set := map[uint64]bool{}
	k.seen.shelf().list(all, set)
	return slices.Sorted(maps.Keys(set))
}

// lives are those of the processes of the peers that are up.
func (k *keeper) lives() map[string][16]byte {
	at := map[string][16]byte{}
	for _, l := range k.g.node.Links() {
		if l.State().Up {
			at[l.Site()] = l.Epoch()
		}
	}
	return at
}

// have tells whether all of these peers have all that was read.
func (k *keeper) have(at map[string][16]byte, sum uint64) bool {
	if sum != k.sum {
		return len(at) == 0
	}
	for site, life := range at {
		if had, ok := k.at[site]; !ok || had != life {
			return false
		}
	}
	return true
}

// changed lists the files that were not read as they are now.
func (k *keeper) changed(ctx context.Context) (files []ImageFile, err error) {
	if time.Now().Before(k.again) {
		return nil, nil
	}
	shelf, room := k.seen.shelf(), k.room()
	for _, dir := range k.g.cfg.SeedDirs {
		all, e := k.g.cfg.Images.List(ctx, dir)
		err = errors.Join(err, e)
		for _, f := range all {
			if k.failed[f.Name].same(f) || !f.settled(min(settleTime, k.g.keepEvery)) {
				continue
			}
			if s, ok := k.seen.get(f.Name); ok && s.is(f) && s.whole() && !shelf.lost(s.Segments, &room) {
				continue
			}
			files = append(files, f)
		}
		if e == nil {
			k.forget(dir, names(all))
		}
	}
	return files, err
}

// forget drops what is known of files of a directory that are gone.
func (k *keeper) forget(dir string, there map[string]bool) {
	k.seen.forget(dir, there)
	maps.DeleteFunc(k.failed, func(name string, _ ImageFile) bool { return below(name, dir) && !there[name] })
}

// room is how many segments more the pool can take.
func (k *keeper) room() uint64 {
	st := k.g.images.pool.Stats()
	return uint64(max(st.Budget/(dedup.MaxWanted*page.Size)-st.Segments, 0))
}
