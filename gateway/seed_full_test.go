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
