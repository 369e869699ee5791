package libvirt_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// line is the WAN: fast, so that the test is short, but slow enough that it is
// worth compressing on two cores that also run the guest.
var line = lab.Link{Rate: 200e6, RTT: 10 * time.Millisecond}

// setUpTime bounds what comes before the first move, and the boot of a guest on
// a busy machine without KVM.
const setUpTime = 2 * time.Minute

// world is two sites with libvirt and a gateway each.
type world struct {
	lab   *lab.Lab
	hosts []*host // of sites a and b
	pair  *pair.Pair
}

func newWorld(t *testing.T) *world {
	t.Helper()
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), setUpTime)
	defer cancel()
	w := &world{}
	binary := buildGateway(t, ctx)
	var err error
	if w.lab, err = lab.New(ctx, lab.Options{Link: line, Seed: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			w.explain(t)
		}
	})
	for i, s := range []*lab.Site{w.lab.A, w.lab.B} {
		w.hosts = append(w.hosts, startHost(t, ctx, s, i+1))
	}
	w.pair, err = pair.Start(ctx, w.lab, pair.Options{Binary: binary, Rate: line.Rate, Extra: func(s *lab.Site) string {
		if s == w.lab.A {
			return forwards(w.hosts[0], w.hosts[1])
		}
		return forwards(w.hosts[1], w.hosts[0])
	}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// need skips where this cannot run.
func need(t *testing.T) {
	t.Helper()
	err := lab.Check()
	for _, name := range []string{"libvirtd", "virsh", "nsenter", "unshare", "hostname"} {
		_, e := exec.LookPath(name)
		err = errors.Join(err, e)
	}
	if err != nil {
		nstest.Skip(t, err.Error()+"; run: apt-get install --no-install-recommends libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients")
	}
	if testing.Short() && os.Getenv("LONGHAUL_NO_SKIP") == "" {
		t.Skip("moves VMs; skipped by -short")
	}
}

func buildGateway(t *testing.T, ctx context.Context) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "longhauld")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/longhaul-project/longhaul/cmd/longhauld")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as "make build" does: most is built already
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("building longhauld: %v\n%s", err, out)
	}
	return path
}

// explain shows the last words of everybody.
func (w *world) explain(t *testing.T) {
	t.Helper()
	for _, h := range w.hosts {
		logs, err := filepath.Glob(h.machine("var/log/libvirt/qemu/*.log"))
		if err != nil {
			t.Error(err)
		}
		consoles, err := filepath.Glob(h.machine("var/log/*.console"))
		if err != nil {
			t.Error(err)
		}
		for _, path := range slices.Concat([]string{filepath.Join(h.Dir, "longhauld.log"), h.daemon.Log}, logs, consoles) {
			b, err := os.ReadFile(path)
			t.Logf("--- site %s, %s (%v)\n%s", h.Name, filepath.Base(path), err, b[max(0, len(b)-2000):])
		}
	}
}
