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

// crashing is a process that makes a lab with programs in it, tells about it
// and waits to be killed.
func crashing() error {
	l, err := New(context.Background(), Options{})
	if err != nil {
		return err
	}
	all, err := startBeside(context.Background(), l)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	fmt.Println(l.ID, l.guard.cmd.Process.Pid, all[0].PID(), all[1].PID())
	select {}
}

// startBeside runs programs in what a lab has beside its two sites and its client: a third site, and a
// host there.
func startBeside(ctx context.Context, l *Lab) (all [2]*Process, err error) {
	third, err := l.AddSite("third")
	if err != nil {
		return all, err
	}
	h, err := l.AddHost(third, Bridge, "h1", "10.77.0.3")
	if err != nil {
		return all, err
	}
	for i, s := range []*Site{third, h} {
		if all[i], err = s.Start(ctx, "sleep", "sleep", "1000"); err != nil {
			return all, err
		}
	}
	return all, nil
}

// start makes a lab in another process.
func start(t *testing.T) (cmd *exec.Cmd, id string, sleepers [2]int, guard int) {
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
		_, err = fmt.Sscan(line, &id, &guard, &sleepers[0], &sleepers[1])
	}
	if err != nil {
		cmd.Process.Kill()
		t.Fatalf("%q: %v", line, errors.Join(err, cmd.Wait()))
	}
	if state := left(id, sleepers); !strings.Contains(state, namespaceOf(id, "third")) || strings.Count(state, "process") != 2 {
		t.Errorf("the lab is not there: %q", state)
	}
	return cmd, id, sleepers, guard
}

// TestWatchdog: a lab whose process is killed goes by itself.
func TestWatchdog(t *testing.T) {
	cmd, id, sleepers, _ := start(t)
	cmd.Process.Kill()
	cmd.Wait()
	waitGone(t, id, sleepers)
}

// TestCleanup: if the watchdog is killed as well, Cleanup removes the lab, and
// leaves one that lives alone.
func TestCleanup(t *testing.T) {
	alive := newLab(t, Link{})
	cmd, id, sleepers, guard := start(t)
	if err := Cleanup(); err != nil {
		t.Fatal(err)
	}
	if left(id, sleepers) == "" {
		t.Error("Cleanup removed a lab that lived")
	}
	unix.Kill(guard, unix.SIGKILL)
	cmd.Process.Kill()
	cmd.Wait()
	if err := Cleanup(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, id, sleepers)
	if _, err := os.Stat("/run/netns/" + alive.A.Namespace); err != nil {
		t.Errorf("Cleanup removed a lab that lives: %v", err)
	}
}

// waitGone waits until nothing is left of a lab.
func waitGone(t *testing.T, id string, pids [2]int) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for left(id, pids) != "" {
		if <-look.C; time.Now().After(deadline) {
			t.Fatalf("still there: %s", left(id, pids))
		}
	}
}

// TestClose: nothing is left of a lab that is closed, without help of its watchdog.
func TestClose(t *testing.T) {
	l := newLab(t, Link{})
	l.guard.cmd.Process.Kill()
	_ = l.guard.dismiss() // it was killed
	var err error
	if l.guard, err = watch(newID()); err != nil { // of a lab that is not there
		t.Fatal(err)
	}
	all, err := startBeside(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second does nothing
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	waitGone(t, l.ID, [2]int{all[0].PID(), all[1].PID()})
}

// left says what is left of a lab.
func left(id string, pids [2]int) string {
	found, _ := filepath.Glob("/run/netns/" + namespaceOf(id, "*"))
	if _, err := os.Stat(dirOf(id)); !errors.Is(err, fs.ErrNotExist) {
		found = append(found, dirOf(id))
	}
	for _, pid := range pids {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(b), ") Z ") {
			found = append(found, fmt.Sprint("process ", pid))
		}
	}
	return strings.Join(found, ", ")
}
