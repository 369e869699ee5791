//go:build linux

package launch

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// withoutDescriptors runs f while this process can open nothing. No test of this package
// is parallel.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: had.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// A process that cannot be seen for a moment has not ended: neither by its number nor by
// what was written down of it. Nor is one killed that may be another.
func TestOutOfDescriptors(t *testing.T) {
	self, err := Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	id := self.ID()
	child, _ := start(t, "exec sleep 600")
	withoutDescriptors(t, func() {
		if !self.Alive() {
			t.Error("it counts as ended")
		}
		if got := self.ID(); got != "" {
			t.Errorf("it has the identity %q", got)
		}
		if p, err := ParseID(id); err == nil || errors.Is(err, ErrID) {
			t.Errorf("%q: %+v, %v; want that it is not known", id, p, err)
		}
		if err := child.Kill(); err == nil {
			t.Error("a process that cannot be seen is killed")
		}
	})
	if p, err := ParseID(id); p != self || err != nil {
		t.Errorf("%q: %+v, %v", id, p, err)
	}
	if !child.Alive() {
		t.Error("the child has ended")
	}
}
