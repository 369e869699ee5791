package gateway_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// seedPart begins a seed and lets n blocks of it be read.
func (s *site) seedPart(n int, r gateway.SeedRequest) (id string) {
	s.t.Helper()
	s.images.gate = make(chan struct{})
	task, err := s.g.Seed(s.t.Context(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	for range n {
		s.images.gate <- struct{}{}
	}
	return task.ID
}

// abortTask ends a task, and lets the next one read freely.
func (s *site) abortTask(id string) gateway.StoreTask {
	s.t.Helper()
	if _, err := s.g.AbortStoreTask(s.t.Context(), id); err != nil {
		s.t.Fatal(err)
	}
	got := s.waitTask(id)
	s.images.gate = nil
	return got
}

// An aborted seed goes on where it was, and what was read before the abort comes to the peer
// as well. Asked for once more it reads nothing.
func TestSeedAborted(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(6, 4)
	a.images.put("/img/tpl", img)
	r := gateway.SeedRequest{Sources: []string{"/img/tpl"}}
	id := a.seedPart(600, r)
	if got := a.abortTask(id); got.State != gateway.TaskAborted {
		t.Fatalf("%+v", got)
	}
	if _, err := a.g.AbortStoreTask(t.Context(), id); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("aborted twice: %v", err)
	}
	was := a.images.wasRead("/img/tpl")
	got := a.seed(r)
	if got.State != gateway.TaskDone || got.Done != 4<<20 || got.Total != 4<<20 || got.Before < 599*4096 || got.Pages > 1024-599 || got.Files != 1 {
		t.Errorf("%+v", got)
	}
	if n := a.images.wasRead("/img/tpl"); n+was > 4<<20+4096 {
		t.Errorf("%d bytes were read before the abort and %d after it, of %d", was, n, 4<<20)
	}
	if p := got.Peers[0]; p.State != "done" || p.Sent != 1024 {
		t.Errorf("the peer got %+v", p)
	}
	if n := newThrough(t, a, b).wire(a, ramStream(img)); n > few {
		t.Errorf("a stream of 4 MiB that was seeded cost %d bytes", n)
	}
	got = a.seed(r)
	if n := a.images.wasRead("/img/tpl"); n > 0 || got.Before != 4<<20 || got.Done != 4<<20 || got.Files != 1 || got.Peers[0].State != "done" {
		t.Errorf("asked for once more: %d bytes were read, %+v", n, got)
	}
}

// What is not read again, because it was read for this site alone, crosses all the same.
func TestSeedSkippedCrosses(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	a.images.put("/img/tpl", disk(6, 1))
	a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true})
	got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	if got.State != gateway.TaskDone || got.Before != 1<<20 || got.Peers[0].Sent != 256 {
		t.Errorf("%+v", got)
	}
}

// What was read of an image whose disk fails is not read again either; nor are the images
// beside it.
func TestSeedFailsAndGoesOn(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	a.images.put("/img/one", disk(6, 1))
	a.images.put("/img/two", disk(7, 2))
	a.images.fail["/img/two"] = 1<<20 + 4096
	r := gateway.SeedRequest{Sources: []string{"/img/"}}
	if got := a.seed(r); got.State != gateway.TaskFailed || !strings.Contains(got.Error, "the disk of /img/two is broken") {
		t.Fatalf("%+v", got)
	}
	a.images.wasRead("/img/one")
	a.images.wasRead("/img/two")
	delete(a.images.fail, "/img/two")
	got := a.seed(r)
	if n, m := a.images.wasRead("/img/one"), a.images.wasRead("/img/two"); got.State != gateway.TaskDone || n != 0 || m != 1<<20-4096 || got.Peers[0].State != "done" {
		t.Errorf("%d bytes of one were read again, and %d of two: %+v", n, m, got)
	}
}

// An image of which anything has changed begins anew, and so does one that the pool has lost
// something of: also one that was read in part.
func TestSeedBeginsAnew(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	r := gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true}
	same := disk(6, 2)
	for name, change := range map[string]func(){
		"time":     func() { a.images.put("/img/tpl", same) },
		"size":     func() { a.images.files["/img/tpl"] = append(slices.Clone(same), disk(9, 1)...) },
		"touched":  func() { a.images.touch("/img/tpl", func(b []byte) []byte { return b }) },
		"no pool":  func() { a.stop(); os.RemoveAll(a.pool()); a.start() },
		"no notes": func() { a.stop(); os.Remove(a.seenFile()); a.start() },
		// The numbers of its segments are those of others.
		"other pool": func() {
			a.stop()
			os.RemoveAll(a.pool())
			notes, err := os.ReadFile(a.seenFile())
			if err != nil {
				t.Fatal(err)
			}
			a.start()
			a.images.put("/img/other", disk(8, 2))
			a.seed(gateway.SeedRequest{Sources: []string{"/img/other"}, Local: true})
			a.stop()
			if err := os.WriteFile(a.seenFile(), notes, 0o600); err != nil {
				t.Fatal(err)
			}
			a.start()
		},
	} {
		for _, blocks := range []int{300, 512} {
			a.images.put("/img/tpl", same)
			if got := a.abortTask(a.seedPart(blocks, r)); got.State != gateway.TaskAborted {
				t.Fatalf("%s: %+v", name, got)
			}
			change()
			a.images.wasRead("/img/tpl")
			got := a.seed(r)
			if n := a.images.wasRead("/img/tpl"); got.State != gateway.TaskDone || n != got.Total || got.Before != 0 {
				t.Errorf("%s, %d blocks: %d bytes were read of %+v", name, blocks, n, got)
			}
		}
	}
}

// pool is where the pool of a site lies, seenFile what was read.
func (s *site) pool() string     { return filepath.Join(s.dir, "store", "_images", "own") }
func (s *site) seenFile() string { return filepath.Join(s.dir, "store", "_images", "seen.json") }

// An export has no time of its last change: a reading that was cut goes on, and one that was not
// is done once more.
func TestSeedWithoutTimes(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	const name = "nbd://h/x"
	a.images.put(name, disk(6, 2))
	a.images.times[name] = time.Time{}
	r := gateway.SeedRequest{Sources: []string{name}, Local: true}
	a.abortTask(a.seedPart(300, r))
	if got := a.seed(r); got.State != gateway.TaskDone || got.Before < 299*4096 {
		t.Errorf("after an abort: %+v", got)
	}
	if got := a.seed(r); got.State != gateway.TaskDone || got.Before != 0 || got.Pages != 512 {
		t.Errorf("once more: %+v", got)
	}
}

// A seed that a restart of the gateway cuts goes on under its name, where it was; one that
// was aborted or has ended does not.
func TestSeedOverRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stop", "crash"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			a, _ := newSeeders(t)
			img := disk(6, 4)
			a.images.put("/img/tpl", img)
			a.images.put("/img/whole", disk(7, 1))
			a.seed(gateway.SeedRequest{Sources: []string{"/img/whole"}, Local: true})
			r := gateway.SeedRequest{Sources: []string{"/img/tpl"}, Rate: 1e9, ReadRate: 8e9}
			a.abortTask(a.seedPart(100, r))
			id := a.seedPart(300, r)
			if how == "crash" { // in time: what was not noted is lost
				noted := await(t, "a note of what was read", func() ([]byte, bool) {
					a.images.gate <- struct{}{}
					b, err := os.ReadFile(a.seenFile())
					return b, err == nil && strings.Contains(string(b), "/img/tpl") && !strings.Contains(string(b), `"done":409600,`)
				})
				a.kill()
				if err := os.WriteFile(a.seenFile(), noted, 0o600); err != nil { // nothing was noted at the end
					t.Fatal(err)
				}
			} else {
				a.stop()
			}
			started, was := a.task(id).Started, a.images.wasRead("/img/tpl")
			a.images.gate = nil
			a.start()
			got := a.waitTask(id)
			if got.State != gateway.TaskDone || got.Before == 0 || got.Done != 4<<20 || got.ReadRate != 8e9 || !got.Started.Equal(started) {
				t.Errorf("%+v, started %v before", got, started)
			}
			if n := a.images.wasRead("/img/tpl"); n >= 4<<20 || how == "stop" && n+was > 4<<20+8192 {
				t.Errorf("%d bytes were read before the restart and %d after it, of %d", was, n, 4<<20)
			}
			if p := got.Peers; len(p) != 1 || p[0].State != "done" || p[0].Sent != 1024 {
				t.Errorf("the peer got %+v", p)
			}
			a.stop()
			a.start()
			if all, err := a.g.StoreTasks(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("tasks after a restart in which nothing was under way: %+v, %v", all, err)
			}
			a.waitUp("b")
		})
	}
}

// task is one task as it was last, also of a gateway that has stopped.
func (s *site) task(id string) gateway.StoreTask {
	s.t.Helper()
	t, err := s.g.StoreTask(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return t
}

// A seed that goes on counts the starts of the gateway until it comes further: an image that
// kills the gateway does so a few times, and not at every start.
func TestSeedCountsStarts(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	a.images.put("/img/tpl", disk(6, 4))
	id := a.seedPart(10, gateway.SeedRequest{Sources: []string{"/img/tpl"}})
	seeds := filepath.Join(filepath.Dir(a.seenFile()), "seeds.json")
	notes := func(has bool) {
		t.Helper()
		await(t, fmt.Sprintf("a count of starts: %v", has), func() (string, bool) {
			b, err := os.ReadFile(seeds)
			return string(b), err == nil && strings.Contains(string(b), id) && strings.Contains(string(b), `"tries":1`) == has
		})
	}
	notes(false)
	a.stop()
	notes(false)
	a.images.gate = make(chan struct{})
	a.start()
	notes(true)
	a.stop() // in good order: that was not the image
	notes(false)
	a.images.gate = make(chan struct{})
	a.start()
	notes(true)
	for range 300 { // it comes further
		a.images.gate <- struct{}{}
	}
	await(t, "a note of what was read", func() (bool, bool) {
		a.images.gate <- struct{}{}
		b, err := os.ReadFile(seeds)
		return true, err == nil && !strings.Contains(string(b), `"tries"`)
	})
}

// A seed that goes on without its source fails, and says why; the next one has another name.
func TestSeedSourceGone(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	a.images.put("/img/tpl", disk(6, 1))
	r := gateway.SeedRequest{Sources: []string{"/img/tpl"}}
	id := a.seedPart(100, r)
	a.stop()
	a.images.gate = nil
	delete(a.images.files, "/img/tpl")
	a.start()
	if got := a.waitTask(id); got.State != gateway.TaskFailed || got.Error != "no file /img/tpl: file does not exist" {
		t.Errorf("%+v", got)
	}
	a.images.put("/img/tpl", disk(6, 1))
	if got := a.seed(r); got.ID == id || got.State != gateway.TaskDone || got.Before != 0 {
		t.Errorf("the next: %+v", got)
	}
}

// sealed is a file with these notes as the gateway writes it.
func sealed(notes string) string {
	return fmt.Sprintf(`{"sha256":"%x","data":%s}`, sha256.Sum256([]byte(notes)), notes)
}

// Notes that are damaged, or say what cannot be, cost reading.
func TestSeedHostileNotes(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	img := disk(6, 1)
	a.images.put("/img/tpl", img)
	when, err := a.images.times["/img/tpl"].MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	entry := func(disk, done, segments string) string {
		return sealed(fmt.Sprintf(`{"/img/tpl":{"size":1048576,"changed":%q,"touched":"0001-01-01T00:00:00Z","noted":%q,"disk":%s,"done":%s,"segments":%s}}`, when, when, disk, done, segments))
	}
	const huge = "18446744073709551615"
	for _, notes := range []string{
		"", "null", "{", "[]", `{"sha256":"","data":{}}`, "\x00\xff", strings.Repeat("[", 1<<20),
		sealed("null"), sealed("[]"), sealed(`{"/img/tpl":null}`),
		strings.Replace(entry("1048576", "1048576", "[]"), `"done":1048576`, `"done":1048572`, 1), // a bit has rotted
		entry("1048576", "1048577", "[]"), entry("1048576", "-4096", "[]"), entry("-1", "-1", "[]"),
		entry("4096", "2048", "[]"), // of another disk
		entry("1048576", "1048576", "[[0,"+huge+",0]]"), entry("1048576", "1048576", "[[5,1,0]]"),
		entry("1048576", "524288", "[["+huge+","+huge+",0],[0,"+huge+",1]]"), entry("1048576", "524288", "[[1,1,7]]"),
	} {
		a.stop()
		seeds := filepath.Join(filepath.Dir(a.seenFile()), "seeds.json")
		if err := errors.Join(os.WriteFile(a.seenFile(), []byte(notes), 0o600), os.WriteFile(seeds, []byte(notes), 0o600)); err != nil {
			t.Fatal(err)
		}
		a.images.wasRead("/img/tpl")
		a.start()
		if all, err := a.g.StoreTasks(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%.200s: %+v, %v", notes, all, err)
		}
		got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true})
		if n := a.images.wasRead("/img/tpl"); got.State != gateway.TaskDone || n != 1<<20 || got.Before != 0 {
			t.Errorf("%.200s: %d bytes were read: %+v", notes, n, got)
		}
	}
}

// Notes of seeds that cannot be are not taken up; those beside them are.
func TestSeedHostileSeeds(t *testing.T) {
	t.Parallel()
	a, _, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		s.images = newImages()
		s.images.put("/img/tpl", disk(6, 1))
		seeds := filepath.Join(filepath.Dir(s.seenFile()), "seeds.json")
		notes := sealed(`[{"id":"store-x","request":{"sources":["/img/tpl"]}},{"id":"store-2147483648","request":{"sources":["/img/tpl"]}},` +
			`{"id":"store-3","request":{"sources":["relative"]}},{"id":"store-4"},{"id":"store-5","request":{"sources":["/img/tpl"],"rate_bps":-1}},` +
			`{"id":"store-07","request":{"sources":["/img/tpl"]}},{"id":"store-5","request":{"sources":["/img/tpl"]},"tries":3},{"id":"store-6","request":{"sources":["/img/tpl"],"local":true}},{"id":"store-6","request":{"sources":["/img/tpl"]}}]`)
		if err := errors.Join(os.MkdirAll(filepath.Dir(seeds), 0o700), os.WriteFile(seeds, []byte(notes), 0o600)); err != nil {
			t.Fatal(err)
		}
	})
	if got := a.waitTask("store-6"); got.State != gateway.TaskDone || got.Pages != 256 || got.Peers[0].Sent != 0 {
		t.Errorf("%+v", got)
	}
	if all, err := a.g.StoreTasks(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}}); got.ID != "store-7" {
		t.Errorf("the next is %s", got.ID)
	}
}

// A disk is not read faster than the request says, or else the config; and who waits for
// that is aborted at once.
func TestSeedReadRate(t *testing.T) {
	t.Parallel()
	a, _ := newSeeders(t)
	a.images.put("/img/tpl", disk(6, 2))
	begun := time.Now()
	got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true, ReadRate: 16e6})
	if took := time.Since(begun); got.State != gateway.TaskDone || got.ReadRate != 16e6 || took < 900*time.Millisecond {
		t.Errorf("2 MiB at 16 Mbit/s took %v: %+v", took, got)
	}
	a.images.put("/img/tpl", disk(7, 2))
	task, err := a.g.Seed(t.Context(), gateway.SeedRequest{Sources: []string{"/img/tpl"}, Local: true, ReadRate: 8}) // 4096 s for a block
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the first block", func() (int64, bool) {
		n := a.images.wasRead("/img/tpl")
		return n, n > 0
	})
	if got := a.abortTask(task.ID); got.State != gateway.TaskAborted {
		t.Errorf("%+v", got)
	}
}
