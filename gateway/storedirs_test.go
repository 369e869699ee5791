package gateway_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// What a gateway holds with a peer can be looked at while it runs, at either end, and it
// goes on as if nobody did.
func TestStoreIsLookedAt(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	img := disk(21, 4)
	a.images.put("/img/tpl", img)
	if got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}}); got.State != gateway.TaskDone {
		t.Fatalf("%+v", got)
	}
	for s, peer := range map[*site]string{a: "b", b: "a"} {
		r, err := s.g.StoreReport(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dirs, err := gateway.StoreDirs(r.Dir)
		if want := []gateway.StoreDir{{Site: peer, Path: filepath.Join(r.Dir, peer)}}; err != nil || cmp.Diff(want, dirs) != "" {
			t.Fatalf("got %v, %v, want %v", dirs, err, want)
		}
		pages := await(t, "all pages on disk", func() (int64, bool) {
			v, err := dedup.OpenView(dirs[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			return v.Pages(), v.Pages() == 1024
		})
		t.Logf("site %s holds %d pages with %s", s.name, pages, peer)
	}
	if n := newThrough(t, a, b).wire(a, ramStream(img)); n > few {
		t.Errorf("a stream of 4 MiB that was seeded cost %d bytes", n)
	}
}

// Stores of tenants are found, and neither what is beside stores nor a site's own.
func TestStoreDirs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b/lock", "c/lock", "_images/lock", "_tenants/red/b/lock", "notes/x", "_tenants/x", "_tenants/blue/x/y"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := gateway.StoreDirs(dir)
	want := []gateway.StoreDir{
		{Site: "b", Path: filepath.Join(dir, "b")}, {Site: "c", Path: filepath.Join(dir, "c")},
		{Site: "b", Tenant: "red", Path: filepath.Join(dir, "_tenants/red/b")},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	if _, err := gateway.StoreDirs(filepath.Join(dir, "none")); err == nil {
		t.Error("no error where there is nothing")
	}
}

// What a peer or a tenant of an older config has left is told with its size, and is not of
// those that are in use.
func TestLeftStores(t *testing.T) {
	t.Parallel()
	a, _, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) { s.tenants = []string{"red"} })
	stores := filepath.Join(a.dir, "store")
	report := func() []gateway.LeftStore {
		r, err := a.g.StoreReport(t.Context()) // opens those of all peers and tenants
		if err != nil || len(r.Peers) != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Left
	}
	if left := report(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	want := []gateway.LeftStore{
		{Site: "old", Dir: filepath.Join(stores, "old"), Disk: 3000},
		{Site: "b", Tenant: "blue", Dir: filepath.Join(stores, "_tenants", "blue", "b"), Disk: 3000},
	}
	for _, l := range want {
		if err := os.MkdirAll(filepath.Join(l.Dir, "sent", "000000"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, n := range map[string]int{"lock": 0, "sent/000000/00000001.seg": 2000, "sent/000000/00000002.seg": 1000} {
			if err := os.WriteFile(filepath.Join(l.Dir, name), make([]byte, n), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if d := cmp.Diff(want, report()); d != "" {
		t.Error(d)
	}
	var told []string
	for _, c := range a.g.ExamineStore() {
		told = append(told, c.Name+" "+c.Subject)
	}
	if d := cmp.Diff([]string{"store " + stores, "left store old", "left store b for blue"}, told); d != "" {
		t.Error(d)
	}
}

// What lies on disk of a peer that was not reached since the start is counted, too.
func TestUnreachedStoreIsCounted(t *testing.T) {
	t.Parallel()
	a, b := newSeeders(t)
	a.images.put("/img/tpl", disk(22, 4))
	if got := a.seed(gateway.SeedRequest{Sources: []string{"/img/tpl"}}); got.State != gateway.TaskDone {
		t.Fatalf("%+v", got)
	}
	report := func() gateway.StoreReport {
		r, err := a.g.StoreReport(t.Context())
		if err != nil || len(r.Peers) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		return r
	}
	before := report()
	b.stop()
	a.stop()
	a.start()
	r := report()
	want := gateway.PeerStore{Site: "b", Pages: 1024, SentPages: 1024, Segments: before.Peers[0].Segments, Disk: 1024 << 12}
	if d := cmp.Diff(want, r.Peers[0]); d != "" {
		t.Error(d)
	}
	if got, want := r.Total.Pages, 1024+r.Images.Pages; got != want {
		t.Errorf("%d pages in total, want %d", got, want)
	}
	if got, want := r.Total.Disk, 1024<<12+r.Images.Disk; got != want {
		t.Errorf("%d bytes on disk in total, want %d", got, want)
	}
}
