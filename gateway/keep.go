package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	seen   map[string]seenFile  // by name, as on disk
	failed map[string]ImageFile // could not be read; tried again when they change
	at     map[string]position  // how far each peer has what was read
	told   string               // the last problem, which is not told again and again

	full  time.Duration // before files are read again, since the pool took no more
	again time.Time     // when they are

	pause time.Duration // before a peer that could not be brought up to date is tried again
	after time.Time     // when it is
}

// seenFile is a file as it was when it was read whole.
type seenFile struct {
	Size     int64     `json:"size"`
	Changed  time.Time `json:"changed"`
	Segments []span    `json:"segments"` // of the pool, that have its pages
}

func (s seenFile) is(f ImageFile) bool { return s.Size == f.Size && s.Changed.Equal(f.Changed) }

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

// span is the segments from the first number to the second.
type span [2]uint64

func spans(set map[uint64]bool) (all []span) {
	for _, id := range slices.Sorted(maps.Keys(set)) {
		if n := len(all); n > 0 && all[n-1][1]+1 == id {
			all[n-1][1] = id
			continue
		}
		all = append(all, span{id, id})
	}
	return all
}

// position is a life of the peer's process, and a round of reading.
type position struct {
	epoch [16]byte
	reads int
}

// seenName is the file of what was seen. It lies with the pool: who loses the one
// has lost the other.
const seenName = "seen.json"

// keepSeeded runs until ctx ends.
func (g *Gateway) keepSeeded(ctx context.Context) {
	k := &keeper{g: g, seen: map[string]seenFile{}, failed: map[string]ImageFile{}, at: map[string]position{}}
	if err := k.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.log.Warn("which images were read is not known; they are read again", "err", err)
	}
	tick := time.NewTicker(g.keepEvery)
	defer tick.Stop()
	for reads := 0; ; {
		reads += k.round(ctx, reads)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// round reads what has changed, and sends what a peer does not have. It returns 1
// if something was read.
func (k *keeper) round(ctx context.Context, reads int) (read int) {
	changed, err := k.changed(ctx)
	if err != nil && ctx.Err() == nil && err.Error() != k.told {
		k.told = err.Error()
		k.g.log.Warn("directory of images", "err", err)
	}
	if len(changed) > 0 {
		read = 1
	}
	at := k.positions(reads + read)
	if len(changed) == 0 && (len(k.seen) == 0 || k.g.cfg.SeedLocal || k.have(at) || time.Now().Before(k.after)) {
		return 0
	}
	done := make(chan struct{})
	_, err = k.g.startTask(StoreTask{Kind: TaskSeed, Sources: k.g.cfg.SeedDirs}, func(ctx context.Context, t *storeTask) error {
		defer close(done)
		s := &seeding{g: k.g, task: t, files: changed, segments: map[uint64]bool{}}
		s.total()
		err := k.seed(ctx, s)
		if k.pause = min(max(2*k.pause, k.g.keepEvery), longestPause); err == nil || len(s.problems) > 0 {
			k.at, k.pause = at, 0
		}
		k.after = time.Now().Add(k.pause)
		if k.full = min(max(2*k.full, k.g.keepEvery), longestPause); !errors.Is(err, errPool) {
			k.full = 0
		}
		k.again = time.Now().Add(k.full)
		return err
	})
	if err != nil {
		return 0 // too many tasks; the next round
	}
	<-done // ends with ctx
	return read
}

// seed reads the files of s, and sends what all files have: also when the disk of this site
// takes no more of them.
func (k *keeper) seed(ctx context.Context, s *seeding) error {
	var full error
	if len(s.files) > 0 {
		err := s.readAll(ctx)
		if errors.Is(err, errPool) {
			full, err = err, nil
		}
		for _, f := range s.broken {
			k.failed[f.Name] = f
		}
		for _, f := range s.read {
			delete(k.failed, f.Name)
			k.seen[f.Name] = seenFile{f.Size, f.Changed, spans(f.segments)}
		}
		if err := errors.Join(err, k.save()); err != nil {
			return errors.Join(full, err)
		}
	}
	s.task.update(func(v *StoreTask) { v.Phase = "sending to peers" })
	err := errors.Join(full, k.g.crossAll(ctx, s.task, k.segments(), SeedRequest{Local: k.g.cfg.SeedLocal}))
	if len(s.problems) > 0 {
		err = errors.Join(err, fmt.Errorf("%d images could not be read, the first: %w", len(s.problems), s.problems[0]))
	}
	return err
}

// segments are those of the pool that have pages of the files.
func (k *keeper) segments() (list []uint64) {
	var all []span
	for _, s := range k.seen {
		all = append(all, s.Segments...)
	}
	for _, id := range k.g.images.pool.Segments() {
		if slices.ContainsFunc(all, func(s span) bool { return s[0] <= id && id <= s[1] }) {
			list = append(list, id)
		}
	}
	return list
}

// positions are those of the peers that are up, once they have all.
func (k *keeper) positions(reads int) map[string]position {
	at := map[string]position{}
	for _, l := range k.g.node.Links() {
		if l.State().Up {
			at[l.Site()] = position{l.Epoch(), reads}
		}
	}
	return at
}

// have tells whether all of these peers have all.
func (k *keeper) have(at map[string]position) bool {
	for site, p := range at {
		if k.at[site] != p {
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
	pool := k.pool()
	for _, dir := range k.g.cfg.SeedDirs {
		all, e := k.g.cfg.Images.List(ctx, dir)
		err = errors.Join(err, e)
		there := make(map[string]bool, len(all))
		for _, f := range all {
			there[f.Name] = true
			if k.failed[f.Name].same(f) || !f.settled(min(settleTime, k.g.keepEvery)) {
				continue
			}
			if s := k.seen[f.Name]; s.is(f) && !pool.lost(s.Segments) {
				continue
			}
			files = append(files, f)
		}
		if e == nil {
			k.forget(filepath.Clean(dir)+string(filepath.Separator), there)
		}
	}
	return files, err
}

// forget drops what is known of files of a directory that are gone.
func (k *keeper) forget(dir string, there map[string]bool) {
	gone := func(name string) bool { return strings.HasPrefix(name, dir) && !there[name] }
	maps.DeleteFunc(k.seen, func(name string, _ seenFile) bool { return gone(name) })
	maps.DeleteFunc(k.failed, func(name string, _ ImageFile) bool { return gone(name) })
}

// shelfRoom is which segments the pool has, ascending, and how many more it can take.
type shelfRoom struct {
	has  []uint64
	room uint64
}

func (k *keeper) pool() *shelfRoom {
	p := k.g.images.pool
	st := p.Stats()
	return &shelfRoom{has: p.Segments(), room: uint64(max(st.Budget/(dedup.MaxWanted*page.Size)-st.Segments, 0))}
}

// lost tells whether the pool does not have some of these segments, though there is
// room for them: so they did not make room for others. It counts on them to come again.
func (r *shelfRoom) lost(all []span) bool {
	missing := uint64(0)
	for _, s := range all {
		from, _ := slices.BinarySearch(r.has, s[0])
		to, found := slices.BinarySearch(r.has, s[1])
		if found {
			to++
		}
		if have := uint64(max(to-from, 0)); s[1] >= s[0] && missing <= r.room {
			missing += s[1] - s[0] + 1 - have
		}
	}
	if missing == 0 || missing >= r.room {
		return false
	}
	r.room -= missing
	return true
}

func (k *keeper) path() string { return filepath.Join(k.g.cfg.StoreDir, imagesDir, seenName) }

func (k *keeper) load() error {
	b, err := os.ReadFile(k.path())
	if err != nil {
		return err
	}
	seen := map[string]seenFile{}
	if err := json.Unmarshal(b, &seen); err != nil {
		return err
	}
	if seen != nil { // as "null" would have it
		k.seen = seen
	}
	return nil
}

func (k *keeper) save() error {
	b, err := json.Marshal(k.seen)
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.path()+".new", b, 0o600); err != nil {
		return fmt.Errorf("noting which images were read: %w", err)
	}
	return os.Rename(k.path()+".new", k.path())
}
