package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	qemuProgram = "/usr/bin/qemu-system-x86_64"

	// guestMemory is in KiB. Not a multiple of 256 KiB: before 8.2.2 QEMU
	// under TCG then loses dirty pages (lab.md).
	guestMemory = 16<<10 + 8

	guestUUID = "7d0f9a52-31a5-4f5e-9c0e-5d1d2b6e8a10"
)

// needQEMU skips a test where there is no QEMU.
func needQEMU(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(qemuProgram); err != nil && os.Getenv("LONGHAUL_NO_SKIP") == "" {
		t.Skipf("needs %s", qemuProgram)
	} else if err != nil {
		t.Fatal(err)
	}
}

// shortDir is a directory whose sockets have short paths. Processes whose
// command line names it end with the test.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range processes(t, dir) {
			if err := p.Kill(); err != nil {
				t.Errorf("ending process %d: %v", p.PID, err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			p.Wait(ctx)
			cancel()
		}
		os.RemoveAll(dir)
	})
	return dir
}

// processes are those whose command line names dir.
func processes(t *testing.T, dir string) []launch.Process {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var list []launch.Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !strings.Contains(string(line), dir+"/") {
			continue
		}
		if p, err := launch.Find(pid); err == nil && p.Alive() {
			list = append(list, p)
		}
	}
	return list
}

// startQEMU runs a VM that idles in its firmware. It ends with the directory.
func startQEMU(t *testing.T, dir, name string, more ...string) {
	t.Helper()
	socket := filepath.Join(dir, name+".sock")
	args := append([]string{
		"-name", name, "-uuid", guestUUID, "-M", "q35", "-accel", "tcg,tb-size=16", "-m", fmt.Sprintf("%dk", guestMemory),
		"-nodefaults", "-display", "none", "-qmp", "unix:" + socket + ",server=on,wait=off",
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:07,romfile=",
	}, more...)
	cmd := exec.Command(qemuProgram, args...)
	out, err := os.Create(filepath.Join(dir, name+".out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Release() // reaped by launch.Process
	awaitSocket(t, socket)
}

func awaitSocket(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); !listening(path); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens at %s", path)
		}
	}
}

// newHost makes a host whose sockets and run directory are in dir.
func newHost(t *testing.T, dir, name string, change func(*Config)) *Host {
	t.Helper()
	sockets := filepath.Join(dir, name)
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: name, Dir: sockets, RunDir: filepath.Join(dir, "run-"+name)}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// newPair is two hosts and a VM that runs at the first.
func newPair(t *testing.T, change func(*Config)) (a, b *Host, dir string) {
	t.Helper()
	needQEMU(t)
	dir = shortDir(t)
	a, b = newHost(t, dir, "a", change), newHost(t, dir, "b", change)
	startQEMU(t, filepath.Join(dir, "a"), "vm1")
	return a, b, dir
}

func TestQEMUPassesTheSuite(t *testing.T) {
	hvtest.Run(t, func(t *testing.T) hvtest.Pair {
		t.Parallel()
		a, b, dir := newPair(t, nil)
		return hvtest.Pair{
			A: a, B: b, VM: "vm1",
			Restart: func(t *testing.T, h gateway.Host) gateway.Host {
				old := h.(*Host)
				old.Close()
				again, err := New(old.cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { again.Close() })
				return again
			},
			Check: func(t *testing.T, at string) { checkClean(t, dir, at) },
		}
	})
}

// checkClean finds what a move should not have left behind.
func checkClean(t *testing.T, dir, at string) {
	t.Helper()
	if list := processes(t, dir); len(list) != 1 {
		t.Errorf("%d processes, want 1: %v", len(list), list)
	}
	places := 0
	for _, name := range []string{"a", "b"} {
		entries, err := os.ReadDir(filepath.Join(dir, "run-"+name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !isToken(e.Name()) {
				continue
			}
			places++
			if name != at {
				t.Errorf("host %s, where the VM is not, has a place %s", name, e.Name())
			}
		}
	}
	if places > 1 {
		t.Errorf("%d places for one VM", places)
	}
}

// holdMonitor is another client of a monitor.
func holdMonitor(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the greeting: the monitor is ours
		t.Fatal(err)
	}
}
