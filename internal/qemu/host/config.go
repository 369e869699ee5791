package host

import (
	"cmp"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/longhaul-project/longhaul/internal/qemu/launch"
)

// Config of a host. Only the Name is needed.
type Config struct {
	Name string

	// Sockets are QMP sockets of VMs. A socket at which nobody listens is
	// passed over: its VM is elsewhere.
	Sockets []string

	// Dir is a directory whose *.sock and *.qmp are QMP sockets. It is read
	// anew by each list. Empty: none.
	Dir string

	// RunDir holds the destinations that are started here. Empty means
	// /run/longhaul/ and the Name. No other host or gateway may use it.
	RunDir string

	// Template is the command that starts a destination, without a shell:
	// see launch.Expand for its placeholders. It has to start QEMU with
	// `-incoming {incoming} -S -qmp unix:{qmp},server=on,wait=off`. Empty means the
	// source's own command line, rewritten; see launch for what that trusts.
	Template []string

	// Emulators are the programs that the source's command line may start, as
	// patterns of path.Match. Empty means launch.DefaultEmulators.
	Emulators []string

	// Before is a command that runs before a destination starts, such as to
	// make its taps; the start fails with it. Empty: none.
	Before []string

	// After is a command that runs after a process has been ended here.
	After []string

	// Env is the environment of hooks and destinations, NAME=value. It comes
	// on top of PATH. The gateway's own environment is not passed on.
	Env []string

	// WorkDir is where destinations run: relative paths of a source's command
	// line are taken from here. Empty means "/".
	WorkDir string

	// StartTimeout bounds the start of a destination. Zero means 30 s, and 1 s
	// more for each GiB of its memory: QEMU is there in 0.1 s, unless it has to
	// find a terabyte of huge pages first (libvirt grants as much,
	// qemuProcessWaitForMonitor).
	StartTimeout time.Duration

	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// maxSocket is the longest path of a unix socket, in bytes (unix(7): 108 with
// the final zero).
const maxSocket = 107

func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		return c, fmt.Errorf("host: no name")
	}
	c.RunDir = cmp.Or(c.RunDir, filepath.Join("/run/longhaul", c.Name))
	c.WorkDir = cmp.Or(c.WorkDir, "/")
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if !filepath.IsAbs(c.RunDir) {
		return c, fmt.Errorf("host %s: run directory %q is not absolute", c.Name, c.RunDir)
	}
	if p := (place{dir: filepath.Join(c.RunDir, noToken)}).qmp(); len(p) > maxSocket {
		return c, fmt.Errorf("host %s: run directory %q is too long: sockets in it would have %d bytes, the limit is %d", c.Name, c.RunDir, len(p), maxSocket)
	}
	for _, pattern := range c.Emulators {
		if _, err := filepath.Match(pattern, "/"); err != nil {
			return c, fmt.Errorf("host %s: emulator pattern %q: %w", c.Name, pattern, err)
		}
	}
	if len(c.Template) > 0 && !filepath.IsAbs(c.Template[0]) {
		return c, fmt.Errorf("host %s: the template's program %q is not an absolute path", c.Name, c.Template[0])
	}
	for _, hook := range [][]string{c.Before, c.After} {
		if len(hook) > 0 && !filepath.IsAbs(hook[0]) {
			return c, fmt.Errorf("host %s: the hook's program %q is not an absolute path", c.Name, hook[0])
		}
	}
	if len(c.Emulators) == 0 {
		c.Emulators = launch.DefaultEmulators()
	}
	return c, nil
}

// startLimit bounds the start of a destination with so many bytes of memory.
func (c Config) startLimit(memory int64) time.Duration {
	return cmp.Or(c.StartTimeout, 30*time.Second+time.Duration(max(memory, 0)>>30)*time.Second)
}
