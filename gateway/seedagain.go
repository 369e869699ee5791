package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A seed by hand that a restart of the gateway cuts goes on at the next start, under its
// name: what was asked for is written down until the task ends.

// seedsName is the file of the seeds that run. It lies with the pool.
const seedsName = "seeds.json"

// notedSeed is one of them.
type notedSeed struct {
	ID      string      `json:"id"`
	Started time.Time   `json:"started"`
	Request SeedRequest `json:"request"`
	Tries   int         `json:"tries,omitempty"` // starts of the gateway since it last came further
}

// seedTries is how many starts of the gateway a seed goes on at without coming further: an
// image that kills the gateway is not to do so at every start, with moves under way.
const seedTries = 3

// number is that of the task, or 0.
func (s notedSeed) number() int {
	digits, ok := strings.CutPrefix(s.ID, "store-")
	n, err := strconv.ParseInt(digits, 10, 32)
	if !ok || err != nil || n < 1 || digits != strconv.FormatInt(n, 10) {
		return 0
	}
	return int(n)
}

func (im *images) seeds() memo { return memo{filepath.Join(im.dir.Path(), seedsName)} }

// noteSeeds writes down which seeds run.
func (g *Gateway) noteSeeds() {
	ts := &g.images.tasks
	ts.noting.Lock()
	defer ts.noting.Unlock()
	if err := g.images.seeds().write(ts.seeds()); err != nil {
		g.log.Warn("which images are being seeded is not noted; after a restart that does not go on by itself", "err", err)
	}
}

// seeds are those that run.
func (ts *storeTasks) seeds() (all []notedSeed) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.all {
		if v := t.snapshot(); t.seed != nil && v.State == TaskRunning {
			all = append(all, notedSeed{v.ID, v.Started, *t.seed, int(t.tries.Load())})
		}
	}
	return all
}

// seedOn has the seeds go on that an earlier run has left, once its moves are taken up.
func (g *Gateway) seedOn() {
	if g.images.pool == nil {
		return
	}
	var left []notedSeed
	err := g.images.seeds().read(&left)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.log.Warn("which images were being seeded is not known; ask for them again", "err", err)
		return
	}
	for _, s := range left {
		if err := g.seedAgain(s); err != nil {
			g.log.Warn("a seed does not go on; ask for it again", "task", s.ID, "err", err)
		}
	}
}

func (g *Gateway) seedAgain(s notedSeed) error {
	n := s.number()
	if n == 0 {
		return fmt.Errorf("%q is no name of a task: %w", s.ID, ErrInvalid)
	}
	if err := s.Request.check(); err != nil {
		return err
	}
	if s.Tries >= seedTries {
		return fmt.Errorf("the gateway has ended %d times since it last came further: %w", s.Tries, ErrUnavailable)
	}
	if _, err := g.images.tasks.get(s.ID); err == nil {
		return fmt.Errorf("%s is there twice: %w", s.ID, ErrInvalid)
	}
	v := g.seedTask(s.Request)
	v.ID, v.Started = s.ID, s.Started
	run := g.seedRun(s.Request)
	_, err := g.startTask(v, &s.Request, func(ctx context.Context, t *storeTask) error {
		t.tries.Store(int32(s.Tries) + 1)
		g.noteSeeds()
		select {
		case <-g.ready:
			return run(ctx, t)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if err == nil {
		g.images.tasks.counted(n)
	}
	return err
}

// cameFurther notes that the images of a seed do not keep the gateway from running.
func (g *Gateway) cameFurther(t *storeTask) {
	if t.tries.Swap(0) > 0 {
		g.noteSeeds()
	}
}

// counted has tasks get higher numbers than this one.
func (ts *storeTasks) counted(n int) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.last = max(ts.last, n)
}
