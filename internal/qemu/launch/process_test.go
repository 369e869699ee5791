//go:build linux

package launch

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start runs a shell command, which ends with the test.
func start(t *testing.T, script string) (p Process, log string) {
	t.Helper()
	log = filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err = Start([]string{"/bin/sh", "-c", script}, []string{"PATH=/bin:/usr/bin", "WORD=hello"}, "/", f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		wait(t, p)
	})
	return p, log
}

func wait(t *testing.T, p Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestStart(t *testing.T) {
	// It sleeps since Start must find it: it is done within some milliseconds.
	p, log := start(t, "pwd; echo $WORD $HOME.; read x || echo no input; ps -o sid= -p $$; sleep 0.2")
	wait(t, p)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(b))
	want := []string{"/", "hello", ".", "no", "input", strconv.Itoa(p.PID)} // a session of its own
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if p.Alive() {
		t.Error("it is alive after its end")
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.PID))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was not let rest: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start([]string{"/nonexistent"}, nil, "/", os.Stderr); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestKill(t *testing.T) {
	p, _ := start(t, "exec sleep 1000")
	if !p.Alive() || p.Age() < 0 || p.Age() > time.Hour {
		t.Errorf("alive %t, age %v", p.Alive(), p.Age())
	}
	other := Process{PID: p.PID, Start: p.Start + 1} // as if the number had been given away
	if other.Alive() {
		t.Error("another process with the same number is alive")
	}
	if err := other.Kill(); err != nil || !p.Alive() {
		t.Errorf("killing another process: %v, and ours is alive: %t", err, p.Alive())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	wait(t, p)
	if err := p.Kill(); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
}

func TestArgs(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo") // that nobody opens
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p, _ := start(t, "exec sh -c 'read x < $0' "+fifo+" ''")
	for deadline := time.Now().Add(2 * time.Minute); ; { // until it has become the second sh
		args, err := p.Args() // in the midst of exec it has no program
		if err == nil && len(args) == 5 && args[3] == fifo && args[4] == "" && filepath.IsAbs(args[0]) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %q, error %v", args, err)
		}
		runtime.Gosched()
	}
}

// TestTap makes a tap in a network namespace of its own.
func TestTap(t *testing.T) {
	got := make(chan string, 1) // the one result
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			got <- "skip: " + err.Error()
			return
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			got <- "skip: " + err.Error()
			return
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq("lhtap7")
		if err == nil {
			req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			got <- "skip: " + err.Error()
			return
		}
		p, err := Find(os.Getpid())
		if err != nil {
			got <- err.Error()
			return
		}
		got <- p.Tap(strconv.Itoa(fd))
	}()
	switch name := <-got; {
	case strings.HasPrefix(name, "skip: ") && os.Getenv("LONGHAUL_NO_SKIP") == "":
		t.Skip(name)
	case name != "lhtap7":
		t.Errorf("got %q", name)
	}
	p := Process{PID: os.Getpid()}
	for _, fd := range []string{"", "0", "../environ", "-1", "99999"} {
		if name := p.Tap(fd); name != "" {
			t.Errorf("descriptor %q is %q", fd, name)
		}
	}
}

func TestStatOfAStrangeName(t *testing.T) {
	dir := t.TempDir()
	prog := filepath.Join(dir, "a) Z 1 (b")
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(prog, sleep, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := Start([]string{prog, "1000"}, nil, "/", os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		p.Kill()
		wait(t, p)
	}()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "stat"))
	if err != nil || !bytes.Contains(b, []byte("(a) Z 1 (b)")) {
		t.Fatalf("stat %s, error %v", b, err)
	}
	if !p.Alive() {
		t.Error("it is not alive")
	}
}
