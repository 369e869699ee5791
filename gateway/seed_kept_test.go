package gateway_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// What the pool has lost of a directory is read again, and so is a file that could not
// be read, once somebody has touched it: its permissions, say.
func TestKeptSeededAgain(t *testing.T) {
	t.Parallel()
	one, bad := disk(8, 2), append([]byte("bad!"), disk(9, 1)[4:]...)
	a, _, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		s.images = newImages()
		if s.name == "a" {
			s.images.put("/img/one", one)
			s.images.put("/img/bad", bad)
			s.dirs = []string{"/img/"}
			// The list of what was read is whatever a disk makes of it.
			dir := filepath.Join(s.dir, "store", "_images")
			if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "seen.json"), []byte("null"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	})
	has := func(pages int64, opened int) {
		t.Helper()
		await(t, "the images in the pool", func() (gateway.ImageStore, bool) {
			r, err := a.g.StoreReport(t.Context())
			return r.Images, err == nil && r.Images.Pages == pages && a.images.opened("/img/one") == opened
		})
	}
	has(512, 1)
	files, err := filepath.Glob(filepath.Join(a.dir, "store", "_images", "own", "*", "*.seg"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 100_000); err != nil {
		t.Fatal(err)
	}
	task, err := a.g.VerifyStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := a.waitTask(task.ID); got.Damaged != 256 || got.Dropped != 1 {
		t.Errorf("%+v", got)
	}
	has(512, 2)
	a.stop()
	if err := os.RemoveAll(filepath.Join(a.dir, "store", "_images", "own")); err != nil {
		t.Fatal(err)
	}
	a.start()
	has(512, 3)

	// What comes while the disk takes nothing is read when it does.
	opened, own := a.images.opened("/img/bad"), filepath.Join(a.dir, "store", "_images", "own")
	if err := errors.Join(os.Rename(own, own+"-away"), os.WriteFile(own, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	a.images.put("/img/two", disk(10, 1))
	await(t, "a task that fails", func() ([]gateway.StoreTask, bool) {
		all, err := a.g.StoreTasks(t.Context())
		return all, err == nil && all[len(all)-1].State == gateway.TaskFailed && strings.Contains(all[len(all)-1].Error, "keeping what was read")
	})
	if err := errors.Join(os.Remove(own), os.Rename(own+"-away", own)); err != nil {
		t.Fatal(err)
	}
	has(768, 3)
	if n := a.images.opened("/img/bad"); n != opened {
		t.Errorf("what cannot be read was read %d times, and again though nobody has touched it", opened)
	}
	a.images.touch("/img/bad", func([]byte) []byte { return disk(9, 1) })
	has(1024, 3)
}

// A directory of the config is kept seeded: files that come and change are read
// and sent, once; also to a peer that comes later.
func TestKeptSeeded(t *testing.T) {
	t.Parallel()
	one, two, three := disk(8, 1), disk(9, 1), disk(10, 1)
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		s.images = newImages()
		if s.name == "a" {
			s.images.put("/img/one", one)
			s.dirs = []string{"/img/"}
		}
	})
	holds := func(pages int64) {
		t.Helper()
		await(t, "content at b", func() (gateway.StoreReport, bool) {
			r, err := b.g.StoreReport(t.Context())
			return r, err == nil && r.Peers[0].ReceivedPages == pages
		})
	}
	holds(256)
	a.images.put("/img/two", two)
	a.seed(gateway.SeedRequest{Sources: []string{"/img/two"}, Local: true}) // by hand, most likely before it is looked for
	holds(512)
	a.images.put("/img/one", three) // changed
	holds(768)
	if n, m := a.images.opened("/img/one"), a.images.opened("/img/two"); n != 2 || m != 1 {
		t.Errorf("one was read %d times, two %d times", n, m)
	}
	a.stop()
	a.start()
	a.waitUp("b")
	await(t, "a look at the peer after the restart", func() ([]gateway.StoreTask, bool) {
		all, err := a.g.StoreTasks(t.Context())
		return all, err == nil && len(all) > 0 && all[len(all)-1].State == gateway.TaskDone && len(all[len(all)-1].Peers) == 1
	})
	if n, m := a.images.opened("/img/one"), a.images.opened("/img/two"); n != 2 || m != 1 {
		t.Errorf("after a restart one was read %d times, two %d times", n, m)
	}
	b.stop()
	if err := os.RemoveAll(filepath.Join(b.dir, "store")); err != nil {
		t.Fatal(err)
	}
	b.start()
	holds(512) // what the files have now
}

// A disk that takes no more of what the directories of the config hold is not tried again and
// again, and peers get what it has: also when it fails at the end of an image, which is no whole
// segment.
func TestKeptOnFullDisk(t *testing.T) {
	t.Parallel()
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		s.images = newImages()
		if s.name == "a" {
			s.images.put("/img/one", disk(8, 1))
			s.dirs = []string{"/img/"}
		}
	})
	crossed := func(pages int64) {
		t.Helper()
		await(t, "content at b", func() (gateway.StoreReport, bool) {
			r, err := b.g.StoreReport(t.Context())
			return r, err == nil && r.Peers[0].ReceivedPages == pages
		})
	}
	crossed(256)
	own := filepath.Join(a.dir, "store", "_images", "own")
	if err := errors.Join(os.Rename(own, own+"-away"), os.WriteFile(own, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	a.images.put("/img/two", disk(10, 1)[:512<<10])
	failed := await(t, "a task that fails", func() (gateway.StoreTask, bool) {
		all, err := a.g.StoreTasks(t.Context())
		last := all[len(all)-1]
		return last, err == nil && last.State == gateway.TaskFailed && strings.Contains(last.Error, "keeping what was read")
	})
	if len(failed.Peers) != 1 || failed.Peers[0].Site != b.name || failed.Peers[0].State != "done" {
		t.Errorf("the peers are %+v", failed.Peers)
	}
	if err := errors.Join(os.Remove(own), os.Rename(own+"-away", own)); err != nil {
		t.Fatal(err)
	}
	crossed(256 + 128)
}
