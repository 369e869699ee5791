package streams

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Names of the streams.
const (
	Deb1   = "deb1"
	Disk   = "deb1-disk"
	Calm   = "deb1-calm"
	Busy   = "deb1-back" // the only one of its kind at first
	Deb2   = "deb2"
	Sparse = "sparse"
)

// Options of a recording. The zero value works.
type Options struct {
	Dir   string       // of the cache; empty means what Dir tells
	Short bool         // one minute of work instead of ten; kept apart from the others
	Only  []string     // record no others; nil means all
	Log   *slog.Logger // nil discards
}

// Stream is a recorded stream.
type Stream struct {
	Name   string    `json:"name"`
	Path   string    `json:"-"`
	Bytes  int64     `json:"bytes"`
	Rounds int       `json:"rounds"` // passes over memory, as QEMU counts them
	Work   int       `json:"work"`   // seconds of work before it, of the Debian servers
	QEMU   string    `json:"qemu"`
	When   time.Time `json:"when"`
}

// Dir is where streams are kept unless told otherwise: $LONGHAUL_STREAMS, or
// longhaul/streams of $XDG_CACHE_HOME, or else /var/tmp/longhaul-streams. They
// take 3.5 GB and the installation they are made of as much again.
func Dir() string {
	if dir := os.Getenv("LONGHAUL_STREAMS"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "longhaul", "streams")
	}
	return "/var/tmp/longhaul-streams"
}

// recorder makes streams.
type recorder struct {
	dir   string // of streams
	build string // of what guests are made of
	work  time.Duration
	log   *slog.Logger
}

// Record records the streams that are not in the cache, and returns those that are
// then, in the order deb1, deb1-disk, deb1-calm, deb1-back, deb2, sparse.
//
// The stream of its disk, and those of deb1 after work, need the disk of deb1 as it was. A cache that
// was made before there was such a stream as deb1-calm has none, and does without
// them, rather than with another deb1.
func Record(ctx context.Context, o Options) ([]Stream, error) {
	r := &recorder{dir: cmp.Or(o.Dir, Dir()), work: 10 * time.Minute, log: o.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.build = filepath.Join(r.dir, "build")
	if o.Short {
		r.dir, r.work = filepath.Join(r.dir, "short"), time.Minute
	}
	for _, dir := range []string{r.dir, r.build} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making the cache of streams: %w", err)
		}
	}
	for _, s := range []struct {
		name   string
		record func(context.Context) error
	}{
		{Sparse, r.sparse}, {Deb2, r.second}, {Deb1, r.first}, {Disk, r.mirrored}, {Calm, r.calm}, {Busy, r.busy},
	} {
		if _, err := r.load(s.name); err == nil || o.Only != nil && !slices.Contains(o.Only, s.name) {
			continue
		}
		if s.name == Disk || s.name == Calm || s.name == Busy {
			if _, err := os.Stat(r.pausedDisk()); err != nil {
				r.log.Warn("not recorded: it needs a deb1 whose disk was kept; remove deb1.json to record that anew", "stream", s.name)
				continue
			}
		}
		if err := s.record(ctx); err != nil {
			return nil, fmt.Errorf("recording %s: %w", s.name, err)
		}
	}
	return r.all()
}

// all loads the descriptions of the streams that there are.
func (r *recorder) all() (all []Stream, err error) {
	for _, name := range []string{Deb1, Disk, Calm, Busy, Deb2, Sparse} {
		s, err := r.load(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (r *recorder) path(name string) string { return filepath.Join(r.dir, name+".mig") }

// load reads the description of a stream, which is written after the stream,
// and finds an error if the two do not belong together.
func (r *recorder) load(name string) (Stream, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, name+".json"))
	if err != nil {
		return Stream{}, err
	}
	var s Stream
	if err := json.Unmarshal(b, &s); err != nil {
		return Stream{}, fmt.Errorf("reading the description of stream %s: %w", name, err)
	}
	s.Path = r.path(name)
	info, err := os.Stat(s.Path)
	if err == nil && (s.Name != name || info.Size() != s.Bytes) {
		err = fmt.Errorf("stream %s has %d bytes, its description says %d", name, info.Size(), s.Bytes)
	}
	return s, err
}

// forget removes a stream and its description.
func (r *recorder) forget(name string) error {
	for _, old := range []string{filepath.Join(r.dir, name+".json"), r.path(name)} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// take captures a stream and describes it.
func (r *recorder) take(ctx context.Context, m *machine, name string, p pace, work time.Duration) error {
	if err := r.forget(name); err != nil {
		return err
	}
	rounds, err := m.capture(ctx, r.path(name), p)
	if err != nil {
		return err
	}
	if rounds < p.rounds {
		return fmt.Errorf("%d rounds, not %d: the guest does not keep a migration busy at %d bytes per second", rounds, p.rounds, p.bandwidth)
	}
	info, err := os.Stat(r.path(name))
	if err != nil {
		return err
	}
	s := Stream{Name: name, Bytes: info.Size(), Rounds: rounds, Work: int(work.Seconds()), QEMU: m.mon.Version().String(), When: time.Now().UTC()}
	r.log.Info("recorded", "stream", name, "bytes", s.Bytes, "rounds", rounds)
	return r.describe(s)
}

// describe writes the description of a stream.
func (r *recorder) describe(s Stream) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, s.Name+".json"), append(b, '\n'), 0o644)
}
