//go:build linux

package host

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
)

// A gateway that can open nothing for a moment does not know what runs: that is not the
// end of a VM. Not parallel, as the limit is the whole process's.
func TestOutOfDescriptors(t *testing.T) {
	h, err := New(Config{Name: "a", RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	self, err := launch.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	id := self.ID()
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: had.Max}); err != nil {
		t.Fatal(err)
	}
	_, reopened := h.Reopen(t.Context(), "db1", id)
	_, opened := h.Source(t.Context(), "db1")
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"reopening": reopened, "opening": opened} {
		if !errors.Is(err, gateway.ErrUnavailable) || errors.Is(err, gateway.ErrNoVM) {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
}
