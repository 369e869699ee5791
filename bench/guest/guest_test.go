package guest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// needQEMU skips where a guest cannot run.
func needQEMU(t *testing.T) {
	t.Helper()
	if os.Getenv("LONGHAUL_NO_SKIP") != "" {
		return
	}
	if testing.Short() {
		t.Skip("boots a guest; skipped by -short")
	}
	for _, name := range []string{"qemu-system-x86_64", "apt-get", "dpkg"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}

// TestBoot builds the image and boots it, with a disk and without a network.
func TestBoot(t *testing.T) {
	needQEMU(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	begin := time.Now()
	img, err := Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("image after %v: %+v", time.Since(begin), img)
	dir := t.TempDir()
	o := Options{Name: "boot", Image: img, QMP: filepath.Join(dir, "qmp"), Console: filepath.Join(dir, "console"), Disk: filepath.Join(dir, "disk")}
	if err := os.WriteFile(o.Disk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(o.Disk, 16<<20); err != nil {
		t.Fatal(err)
	}
	argv := Command(o)
	for i, a := range argv { // no tap here
		if a == "-netdev" {
			argv[i+1] = "user,id=net0,restrict=on"
		}
	}
	begin = time.Now()
	vm, err := Start(ctx, o, nil, argv)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	if err := vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(begin))
	b, _ := os.ReadFile(o.Console)
	t.Logf("%s", b)
}

// TestAccel: the answer is one of two, and comes in time.
func TestAccel(t *testing.T) {
	needQEMU(t)
	img, err := Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	got := probeKVM(t.Context(), img)
	took := time.Since(begin)
	t.Logf("%s after %v", got, took)
	if again := Accel(t.Context(), img); again != "kvm" && again != "tcg" {
		t.Errorf("Accel answers %q", again)
	}
	if got != "kvm" && got != "tcg" || took > patience+5*time.Second {
		t.Errorf("%q after %v", got, took)
	}
}
