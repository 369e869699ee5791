package lab

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// newID makes a lab's identifier, "PID-START-RANDOM": the process that made it,
// and when that process started, so that a later process of the same number is
// not taken for it.
func newID() string {
	return fmt.Sprintf("%d-%s-%04x", os.Getpid(), startTime(os.Getpid()), rand.N(1<<16))
}

// startTime of a process in clock ticks since boot, in base 10, or "".
func startTime(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name in parentheses may hold anything; start time is the 20th
	// field after it (proc(5), field 22).
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

func namespaceOf(id, site string) string { return "lh-" + id + "-" + site }

// dirOf is short, because paths of unix sockets end at 107 bytes.
func dirOf(id string) string { return filepath.Join(os.TempDir(), "lh-"+id) }

// Cleanup removes what labs of processes that have died left behind: their
// processes, namespaces and folders. Labs that live are left alone.
func Cleanup() error {
	dead, err := leftovers()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range dead {
		errs = append(errs, remove(id))
	}
	return errors.Join(errs...)
}

// leftovers finds the labs of dead processes.
func leftovers() ([]string, error) {
	name := regexp.MustCompile(`^lh-((\d+)-(\d+)-[0-9a-f]{4})(-[0-9a-z]+)?$`)
	found := make(map[string]bool)
	for _, dir := range []string{"/run/netns", os.TempDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("looking for leftovers: %w", err)
		}
		for _, e := range entries {
			var pid int
			if m := name.FindStringSubmatch(e.Name()); m != nil {
				fmt.Sscan(m[2], &pid)
				if startTime(pid) != m[3] {
					found[m[1]] = true
				}
			}
		}
	}
	var ids []string
	for id := range found {
		ids = append(ids, id)
	}
	return ids, nil
}

func remove(id string) error {
	all, err := filepath.Glob(filepath.Join("/run/netns", namespaceOf(id, "*")))
	errs := []error{err}
	for _, path := range all {
		name := filepath.Base(path)
		errs = append(errs, killInside(name), nstest.Remove(name))
	}
	return errors.Join(append(errs, os.RemoveAll(dirOf(id)))...)
}

// watchdog is a shell that waits for our end and then removes the lab. It has
// a session of its own, so that Ctrl-C does not reach it.
type watchdog struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser // its end is the sign
}

const watchdogScript = `cat >/dev/null
for f in /run/netns/lh-$1-*; do
	[ -e "$f" ] || continue
	n=${f##*/}
	for p in $(ip netns pids $n 2>/dev/null); do kill -9 $p; done
	ip netns delete $n
done 2>/dev/null
rm -rf "$2"`

func watch(id string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "longhaul-lab-watchdog", id, dirOf(id))
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the lab's watchdog: %w", err)
	}
	return &watchdog{cmd, pipe}, nil
}

// dismiss lets the watchdog look, find nothing and end.
func (w *watchdog) dismiss() error {
	return errors.Join(w.pipe.Close(), w.cmd.Wait())
}
