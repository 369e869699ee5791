package streams

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

func TestDir(t *testing.T) {
	for _, tt := range []struct{ own, xdg, want string }{
		{"/own", "/cache", "/own"}, {"", "/cache", "/cache/longhaul/streams"}, {"", "", "/var/tmp/longhaul-streams"},
	} {
		t.Setenv("LONGHAUL_STREAMS", tt.own)
		t.Setenv("XDG_CACHE_HOME", tt.xdg)
		if got := Dir(); got != tt.want {
			t.Errorf("Dir with %q, %q = %s, want %s", tt.own, tt.xdg, got, tt.want)
		}
	}
}

// TestCached: what is there is not recorded again, but what is damaged is. A cache
// without the disk of deb1 does without the stream that needs it.
func TestCached(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{Deb1, Busy, Deb2, Sparse} {
		content := bytes.Repeat([]byte("x"), 10+i)
		about, err := json.Marshal(Stream{Name: name, Bytes: int64(len(content)), Rounds: i})
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name+".mig"), content)
		writeFile(t, filepath.Join(dir, name+".json"), about)
	}
	all, err := Record(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 || all[1].Name != Busy || all[1].Bytes != 11 || all[1].Path != filepath.Join(dir, "deb1-back.mig") {
		t.Errorf("found %+v", all)
	}
	writeFile(t, filepath.Join(dir, "sparse.mig"), []byte("short"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Record(ctx, Options{Dir: dir}); err == nil {
		t.Error("a stream of the wrong size was taken")
	}
	if _, err := Record(ctx, Options{Dir: dir, Only: []string{Deb2}}); err == nil {
		t.Error("a stream of the wrong size was taken since it was not to be recorded")
	}
}

// TestScripts: what runs in the guests is at least well-formed.
func TestScripts(t *testing.T) {
	for _, argv := range [][]string{{"perl", "-c", "debian/agent.pl"}, {"sh", "-n", "debian/customize.sh"}} {
		if _, err := exec.LookPath(argv[0]); err != nil {
			t.Logf("needs %s", argv[0])
			continue
		}
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", argv, err, out)
		}
	}
}

// TestCapture records a small guest, lets it go on, and takes the recording up in
// another QEMU.
func TestCapture(t *testing.T) {
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil || testing.Short() {
		nstest.Skip(t, "runs QEMU")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	img, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-kernel", img.Kernel, "-initrd", img.Initrd, "-append", "console=ttyS0 quiet panic=-1 lh.rate=500"}
	m, err := start(ctx, "small", 96<<10+8, args)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := m.vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "small.mig")
	rounds, err := m.capture(ctx, path, pace{rounds: 2, bandwidth: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if rounds < 2 {
		t.Errorf("%d rounds, want 2 at least", rounds)
	}
	checkWhole(t, path)
	if err := m.mon.Cont(ctx); err != nil {
		t.Errorf("the guest does not go on: %v", err)
	}
	again, err := start(ctx, "small", 96<<10+8, append(args, incoming...))
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if err := again.load(ctx, path); err != nil {
		t.Fatal(err)
	}
	if err := again.mon.Cont(ctx); err != nil {
		t.Error(err)
	}
	if s, err := again.mon.QueryStatus(ctx); err != nil || !s.Running {
		t.Errorf("the recording does not go on: %+v, %v", s, err)
	}
	if err := again.load(ctx, path+".other"); err == nil {
		t.Error("a recording that is not there was loaded")
	}
}

// checkWhole scans a captured stream to its end.
func checkWhole(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := vmstream.New()
	sealed := false
	for len(b) > 0 {
		it, n := s.Next(b[:min(len(b), page.MaxItem)])
		if n == 0 {
			it, n = s.Cut(b), len(b)
		}
		sealed = sealed || it.Mark&page.Seal != 0
		b = b[n:]
	}
	if f := s.Facts(); !sealed || f.Lost != "" || f.Pages < 10_000 {
		t.Errorf("sealed %v, %+v", sealed, f)
	}
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
