package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/page"
)

// fakeImages are images in memory. A name that ends in a slash is a directory.
type fakeImages struct {
	mu      sync.Mutex // guards what follows
	files   map[string][]byte
	times   map[string]time.Time
	touched map[string]time.Time // what was touched only
	opens   map[string]int
	reads   map[string]int64 // bytes that were read
	fail    map[string]int   // bytes after which reading fails
	gate    chan struct{}    // if not nil, a block of an image is read for each value taken
}

func newImages() *fakeImages {
	return &fakeImages{files: map[string][]byte{}, times: map[string]time.Time{}, touched: map[string]time.Time{}, opens: map[string]int{}, reads: map[string]int64{}, fail: map[string]int{}}
}

func (f *fakeImages) put(name string, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[name] = b
	f.times[name] = time.Now().Add(-time.Hour).Add(time.Duration(len(f.times)+f.opens[name]) * time.Second)
}

// touch has f change a file of which the size and time stay what they are.
func (f *fakeImages) touch(name string, change func([]byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[name] = change(f.files[name])
	f.touched[name] = time.Now()
}

func (f *fakeImages) opened(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opens[name]
}

// wasRead tells how many bytes of a file were read since it was asked last.
func (f *fakeImages) wasRead(name string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer delete(f.reads, name)
	return f.reads[name]
}

// List implements gateway.Images.
func (f *fakeImages) List(_ context.Context, name string) (all []gateway.ImageFile, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, b := range f.files {
		if n == name || strings.HasPrefix(n, strings.TrimSuffix(name, "/")+"/") {
			all = append(all, gateway.ImageFile{Name: n, Size: int64(len(b)), Changed: f.times[n], Touched: f.touched[n]})
		}
	}
	slices.SortFunc(all, func(a, b gateway.ImageFile) int { return strings.Compare(a.Name, b.Name) })
	if len(all) == 0 && !strings.HasSuffix(name, "/") {
		err = fmt.Errorf("no file %s: %w", name, fs.ErrNotExist)
	}
	return all, err
}

// Open implements gateway.Images.
func (f *fakeImages) Open(_ context.Context, name string) (gateway.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opens[name]++
	b, ok := f.files[name]
	if !ok || string(b[:4]) == "bad!" {
		return nil, errors.New("cannot open " + name)
	}
	return &fakeImage{all: f, name: name, b: b, gate: f.gate, fail: f.fail[name]}, nil
}

type fakeImage struct {
	all      *fakeImages
	name     string
	b        []byte
	at, fail int
	read     int64
	gate     chan struct{}
}

func (f *fakeImage) From(done int64) { f.at = int(done) }

func (f *fakeImage) Read() int64 { return f.read }

func (f *fakeImage) Size() int64 { return int64(len(f.b)) }

func (f *fakeImage) Close() error { return nil }

func (f *fakeImage) Next(ctx context.Context) ([]byte, int64, error) {
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-ctx.Done():
			return nil, int64(f.at), context.Cause(ctx)
		}
	}
	for f.at < len(f.b) {
		if f.fail > 0 && f.at >= f.fail {
			return nil, int64(f.at), errors.New("the disk of " + f.name + " is broken")
		}
		p := f.b[f.at : f.at+page.Size]
		f.at += page.Size
		f.read += page.Size
		f.all.mu.Lock()
		f.all.reads[f.name] += page.Size
		f.all.mu.Unlock()
		if !bytes.Equal(p, make([]byte, page.Size)) {
			return p, int64(f.at), nil
		}
	}
	return nil, int64(f.at), io.EOF
}

// few is what a stream of 4 MiB of known pages may cost in bytes: 6 KB, and the
// pages that a slow machine cuts in two, because a source that pauses may wait for
// an answer.
const few = 400_000

// disk is n MiB of random pages; the same seed makes the same disk.
func disk(seed uint64, n int) []byte {
	b := make([]byte, n<<20)
	rng := rand.NewChaCha8([32]byte{byte(seed), 9})
	rng.Read(b)
	return b
}

// newSeeders makes a pair that can seed images.
func newSeeders(t *testing.T) (a, b *site) {
	t.Helper()
	a, b, _ = newPairWith(t, hvtest.Guest{}, nil, func(s *site) { s.images = newImages() })
	return a, b
}

// seed seeds a file and waits for the end.
func (s *site) seed(r gateway.SeedRequest) gateway.StoreTask {
	s.t.Helper()
	t, err := s.g.Seed(s.t.Context(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.waitTask(t.ID)
}

func (s *site) waitTask(id string) gateway.StoreTask {
	s.t.Helper()
	return await(s.t, "the end of task "+id, func() (gateway.StoreTask, bool) {
		t, err := s.g.StoreTask(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		return t, t.State != gateway.TaskRunning
	})
}

// await asks until what it waits for has come.
func await[T any](t testing.TB, what string, ask func() (T, bool)) T {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		v, ok := ask()
		if ok {
			return v
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not come: %+v", what, v)
		}
	}
}

// wire is what crosses for a stream that goes from a to b.
func (p *through) wire(a *site, stream []byte) int64 {
	p.tb.Helper()
	count := func() int64 {
		fs, err := a.g.Forwards(context.Background())
		if err != nil || len(fs) != 1 {
			p.tb.Fatal(fs, err)
		}
		return fs[0].Wire
	}
	before := count()
	if p.send(stream) != sha256.Sum256(stream) {
		p.tb.Fatal("another stream came out")
	}
	return count() - before
}

// Seeded at the source only: it crosses once, and a move that is full of it is
// references. Seeding again, also after a restart of both, costs next to nothing.
func TestSeedOneEnd(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(1, 4)
	a.images.put("/img/tpl", img)
	got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	if got.State != gateway.TaskDone || got.Done != 4<<20 || got.Total != 4<<20 || got.Files != 1 || got.Pages != 1024 || got.Fresh != 1024 {
		t.Fatalf("%+v", got)
	}
	if p := got.Peers; len(p) != 1 || p[0].Site != "b" || p[0].State != "done" || p[0].Sent != 1024 || p[0].Left != 0 || p[0].Wire < 4<<20 {
		t.Fatalf("%+v", p)
	}
	if n := newThrough(t, a, b).wire(a, ramStream(img)); n > few {
		t.Errorf("a stream of 4 MiB that was seeded cost %d bytes", n)
	}
	noChannels(t, 0, a, b)
	again := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	if again.State != gateway.TaskDone || again.Fresh != 0 || again.Peers[0].Wire != 0 {
		t.Errorf("the second time: %+v", again)
	}
	for _, s := range []*site{a, b} {
		s.stop()
		s.start()
	}
	a.waitUp("b")
	b.waitUp("a")
	again = a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	if again.State != gateway.TaskDone || again.Fresh != 0 || again.Peers[0].Wire != 0 {
		t.Errorf("after a restart of both: %+v", again)
	}
}

// Seeded at both ends: hashes cross. Whoever was second, and a move either way,
// pays for references only.
func TestSeedBothEnds(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(2, 4)
	for _, s := range []*site{a, b} {
		s.images.put("/img/tpl", img)
	}
	// Both at once: none sends before the other has read as well.
	ta, err := a.g.Seed(t.Context(), gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	if err != nil {
		t.Fatal(err)
	}
	b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true})
	first := a.waitTask(ta.ID)
	if first.State != gateway.TaskDone {
		t.Fatalf("%+v", first)
	}
	second := b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	t.Logf("the first: %+v; the second: %+v", first.Peers, second.Peers)
	if second.State != gateway.TaskDone || second.Fresh != 0 || second.Peers[0].Wire > 1000 {
		t.Errorf("the second: %+v", second)
	}
	if n := newThrough(t, a, b).wire(a, ramStream(img)); n > few {
		t.Errorf("a stream of 4 MiB that both have seeded cost %d bytes", n)
	}
}

// One end has it already when the other seeds: hashes cross, nothing else.
func TestSeedIsAgreedByHashes(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(3, 4)
	for _, s := range []*site{a, b} {
		s.images.put("/img/tpl", img)
	}
	if got := b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true}); got.State != gateway.TaskDone || got.Peers[0].Wire != 0 {
		t.Fatalf("%+v", got)
	}
	got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	if p := got.Peers[0]; got.State != gateway.TaskDone || p.Claims != 1024 || p.Sent != 0 || p.Wire > 1024*26+2000 {
		t.Fatalf("%+v", got)
	}
	if n := newThrough(t, a, b).wire(a, ramStream(img)); n > few {
		t.Errorf("a stream of 4 MiB that both have seeded cost %d bytes", n)
	}
	r, err := b.g.StoreReport(t.Context())
	if err != nil || len(r.Peers) != 1 || r.Peers[0].Claims != 1024 || r.Images.Pages != 1024 || r.Images.Hits != 1024 || r.Peers[0].Hits < 900 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A move finds what the destination has of its own without anybody having seeded at
// the source, and without a question on its path.
func TestMoveFindsWhatThePeerHas(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(4, 4)
	b.images.put("/img/tpl", img)
	b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true})
	await(t, "what b has", func() (int64, bool) {
		r, err := a.g.StoreReport(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r.Peers[0].Hints, r.Peers[0].Hints == 1024
	})
	p := newThrough(t, a, b)
	if n := p.wire(a, ramStream(img)); n > 1024*26+few {
		t.Errorf("a stream of 4 MiB that the destination has cost %d bytes", n)
	}
	if n := p.wire(a, ramStream(img)); n > few {
		t.Errorf("the second time it cost %d bytes", n)
	}
}

// What was left out of a summary because both held it in common is told once the
// store has let go of it.
func TestSummaryAfterEviction(t *testing.T) {
	t.Parallel()
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) { s.images, s.disk = newImages(), 16<<20 })
	img := disk(11, 2)
	for _, s := range []*site{a, b} {
		s.images.put("/img/tpl", img)
	}
	b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true})
	a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	a.stop() // what a has heard is lost; now both hold it in common
	a.start()
	a.waitUp("b")
	p := newThrough(t, a, b)
	if n := p.wire(a, ramStream(img)); n > few {
		t.Fatalf("before the eviction it cost %d bytes", n)
	}
	if r, _ := a.g.StoreReport(t.Context()); r.Peers[0].Hints != 0 {
		t.Errorf("a was told of %d pages that both hold in common", r.Peers[0].Hints)
	}
	p.wire(a, ramStream(disk(12, 12)))
	await(t, "the hints of what has gone", func() (int64, bool) {
		r, err := a.g.StoreReport(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r.Peers[0].Hints, r.Peers[0].Hints == 512
	})
	if n := p.wire(a, ramStream(img)); n > 512*26+few {
		t.Errorf("after the eviction it cost %d bytes", n)
	}
}

// The pool of the destination is lost after it has told what it has: its pages come
// in full, and the stream is right.
func TestMoveWithoutWhatThePeerHad(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(5, 4)
	b.images.put("/img/tpl", img)
	b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true})
	await(t, "what b has", func() (int64, bool) {
		r, _ := a.g.StoreReport(t.Context())
		return r.Peers[0].Hints, r.Peers[0].Hints == 1024
	})
	files, err := filepath.Glob(filepath.Join(b.dir, "store", "_images", "own", "*", "*.seg"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for i, f := range files {
		if i == 0 { // rotten, all of it
			data, _ := os.ReadFile(f)
			for j := 3000; j < len(data); j += 1000 {
				data[j] ^= 1
			}
			if err := os.WriteFile(f, data, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	p := newThrough(t, a, b)
	p.wire(a, ramStream(img)) // compares
	if n := p.wire(a, ramStream(img)); n > few {
		t.Errorf("the second time it cost %d bytes", n)
	}
	v, err := b.g.VerifyStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := b.waitTask(v.ID); got.State != gateway.TaskDone || got.Segments == 0 || got.Done != got.Total {
		t.Errorf("%+v", got)
	}
	if again := b.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true}); again.Fresh != 1024 {
		t.Errorf("seeded again: %+v", again)
	}
}

// One image that cannot be read does not keep the others from being seeded, and is
// told of.
func TestSeedBadImage(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	a.images.put("/img/bad", append([]byte("bad!"), make([]byte, 5000)...))
	a.images.put("/img/good", disk(7, 1))
	got := a.seed(gateway.SeedRequest{Sources: []string{"/img/"}})
	if got.State != gateway.TaskFailed || got.Files != 1 || got.Fresh != 256 || got.Peers[0].Sent != 256 || !strings.Contains(got.Error, "cannot open /img/bad") {
		t.Errorf("%+v", got)
	}
	for _, r := range []gateway.SeedRequest{{}, {Sources: []string{"relative"}}, {Sources: []string{"/x"}, Rate: -1}} {
		if _, err := a.g.Seed(t.Context(), r); !errors.Is(err, gateway.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if got := a.seed(gateway.SeedRequest{Sources: []string{"/none"}}); got.State != gateway.TaskFailed || !strings.Contains(got.Error, "no file /none: file does not exist") {
		t.Errorf("%+v", got)
	}
}

// A store whose disk cannot be read is one in memory: it costs bandwidth, some day, and
// no move.
func TestStoreWithoutDisk(t *testing.T) {
	t.Parallel()
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		if dir := filepath.Join(s.dir, "store", "a"); s.name == "b" {
			if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "sent"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	})
	stream := ramStream(disk(11, 4))
	p := newThrough(t, a, b)
	p.wire(a, stream)
	if n := p.wire(a, stream); n > few {
		t.Errorf("the second time a stream of 4 MiB cost %d bytes", n)
	}
	r, err := b.g.StoreReport(t.Context())
	// Pages in whose middle the source pauses are cut: few, if it is slow.
	if err != nil || r.Peers[0].Pages < 1024-few/page.Size || r.Peers[0].Disk != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Names of files and errors come to the operator's terminal by what a task shows: nothing
// in them may move its cursor.
func TestSeedQuotesNames(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	const name, quoted = "/img/\x1b[2J\u009b31m\u202e\n\xffé", `/img/\x1b[2J\u009b31m\u202e\n\xffé`
	a.images.put(name, disk(31, 1))
	a.images.gate = make(chan struct{})
	task, err := a.g.Seed(t.Context(), gateway.SeedRequest{Sources: []string{name}, Local: true})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the phase of reading", func() (string, bool) {
		v, err := a.g.StoreTask(t.Context(), task.ID)
		if err != nil {
			t.Fatal(err)
		}
		return v.Phase, v.Phase == "reading "+quoted
	})
	close(a.images.gate)
	if got := a.waitTask(task.ID); got.State != gateway.TaskDone || got.Sources[0] != name {
		t.Errorf("%+v", got)
	}
	a.images.put(name, []byte("bad!"))
	oneLine := strings.ReplaceAll(quoted, `\n`, "; ")
	if got := a.seed(gateway.SeedRequest{Sources: []string{name}}); got.State != gateway.TaskFailed || got.Error != "cannot open "+oneLine {
		t.Errorf("%s: %s", got.State, got.Error)
	}
}

// What is no source is refused at once, and told what is.
func TestSeedRefusesSources(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	for source, want := range map[string]string{
		"nbds://h/x":    `"nbds" is no scheme`,
		"https://h/x":   "want nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH (neither with TLS) or an absolute path",
		"nbd-image.raw": "is no absolute path",
		"img/x":         "is no absolute path",
	} {
		if _, err := a.g.Seed(t.Context(), gateway.SeedRequest{Sources: []string{source}}); !errors.Is(err, gateway.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}
