package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

const crashMark = "LONGHAUL_LAB_CRASH"

// crashing is a process that makes a lab with a program in it, tells about it
// and waits to be killed.
func crashing() error {
	l, err := New(context.Background(), Options{})
	if err != nil {
		return err
	}
	p, err := startInHost(context.Background(), l)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	fmt.Println(l.ID, p.PID(), l.guard.cmd.Process.Pid)
	select {}
}

// startInHost runs a program in a host that a lab has beside its sites.
func startInHost(ctx context.Context, l *Lab) (*Process, error) {
	h, err := l.AddHost(l.B, Bridge, "h1", "10.77.0.3")
	if err != nil {
		return nil, err
	}
	return h.Start(ctx, "sleep", "sleep", "1000")
}

// start makes a lab in another process.
func start(t *testing.T) (cmd *exec.Cmd, id string, sleeper, guard int) {
	t.Helper()
	nstest.NeedRoot(t)
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashMark+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &id, &sleeper, &guard)
	}
	if err != nil {
		cmd.Process.Kill()
		t.Fatalf("%q: %v", line, errors.Join(err, cmd.Wait()))
	}
	if state := left(id, sleeper); !strings.Contains(state, "netns") || !strings.Contains(state, "process") {
		t.Errorf("the lab is not there: %q", state)
	}
	return cmd, id, sleeper, guard
}

// TestWatchdog: a lab whose process is killed goes by itself.
func TestWatchdog(t *testing.T) {
	cmd, id, sleeper, _ := start(t)
	cmd.Process.Kill()
	cmd.Wait()
	waitGone(t, id, sleeper)
}

// TestCleanup: if the watchdog is killed as well, Cleanup removes the lab, and
// leaves one that lives alone.
func TestCleanup(t *testing.T) {
	alive := newLab(t, Link{})
	cmd, id, sleeper, guard := start(t)
	if err := Cleanup(); err != nil {
		t.Fatal(err)
	}
	if left(id, sleeper) == "" {
		t.Error("Cleanup removed a lab that lived")
	}
	unix.Kill(guard, unix.SIGKILL)
	cmd.Process.Kill()
	cmd.Wait()
	if err := Cleanup(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, id, sleeper)
	if _, err := os.Stat("/run/netns/" + alive.A.Namespace); err != nil {
		t.Errorf("Cleanup removed a lab that lives: %v", err)
	}
}

// waitGone waits until nothing is left of a lab.
func waitGone(t *testing.T, id string, pid int) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for left(id, pid) != "" {
		if <-look.C; time.Now().After(deadline) {
			t.Fatalf("still there: %s", left(id, pid))
		}
	}
}

// TestClose: nothing is left of a lab that is closed.
func TestClose(t *testing.T) {
	l := newLab(t, Link{})
	p, err := startInHost(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second does nothing
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	<-p.Done()
	waitGone(t, l.ID, p.PID())
}

// left says what is left of a lab.
func left(id string, pid int) string {
	found, _ := filepath.Glob("/run/netns/" + namespaceOf(id, "*"))
	if _, err := os.Stat(dirOf(id)); !errors.Is(err, fs.ErrNotExist) {
		found = append(found, dirOf(id))
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
		found = append(found, fmt.Sprint("process ", pid))
	}
	return strings.Join(found, ", ")
}
