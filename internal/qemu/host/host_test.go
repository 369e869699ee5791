package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
)

const testToken = "0123456789abcdef0123456789abcdef"

func TestConfig(t *testing.T) {
	long := "/" + strings.Repeat("x", maxSocket)
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"no name", Config{}},
		{"relative run directory", Config{Name: "a", RunDir: "run"}},
		{"long run directory", Config{Name: "a", RunDir: long}},
		{"bad pattern", Config{Name: "a", Emulators: []string{"/usr/bin/[x"}}},
		{"relative template", Config{Name: "a", Template: []string{"vm", "{name}"}}},
		{"relative hook", Config{Name: "a", Before: []string{"mktap"}}},
		{"relative hook after", Config{Name: "a", After: []string{"rmtap"}}},
	} {
		if _, err := New(c.cfg); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
	h, err := New(Config{Name: "a"})
	if err != nil || h.cfg.RunDir != "/run/longhaul/a" {
		t.Errorf("got %+v, error %v", h, err)
	}
}

func TestStates(t *testing.T) {
	for status, want := range map[string]gateway.RunState{
		"running": gateway.Running, "paused": gateway.Paused, "inmigrate": gateway.Incoming, "postmigrate": gateway.Moved,
		"finish-migrate": gateway.Paused, "prelaunch": gateway.Paused, "guest-panicked": gateway.Unknown, "of the future": gateway.Unknown,
	} {
		if got := stateOf(status); got != want {
			t.Errorf("%s is %s, want %s", status, got, want)
		}
	}
}

func TestSourceCapabilities(t *testing.T) {
	known := map[string]bool{"events": false, "return-path": false, "pause-before-switchover": false, "multifd": false, "auto-converge": true, "xbzrle": true}
	got, err := sourceCapabilities(known, gateway.MoveParams{Channels: 2})
	want := map[string]bool{"events": true, "return-path": true, "pause-before-switchover": true, "multifd": true, "auto-converge": false, "xbzrle": false}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, error %v, want %v", got, err, want)
	}
	delete(known, "return-path")
	if _, err := sourceCapabilities(known, gateway.MoveParams{}); !errors.Is(err, gateway.ErrInvalid) {
		t.Errorf("without return path: error %v", err)
	}
}

func TestDirectoryIsAway(t *testing.T) {
	h := newHost(t, shortDir(t), "a", nil)
	os.Remove(h.cfg.Dir)
	if _, err := h.VMs(t.Context()); !errors.Is(err, gateway.ErrUnavailable) {
		t.Errorf("VMs: %v", err)
	}
	if _, err := h.Source(t.Context(), "vm1"); !errors.Is(err, gateway.ErrUnavailable) || errors.Is(err, gateway.ErrNoVM) {
		t.Errorf("Source: %v", err)
	}
}

func TestStaleSocketsAreNoVMs(t *testing.T) {
	h := newHost(t, shortDir(t), "a", nil)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(h.cfg.Dir, "x.sock")})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	os.WriteFile(filepath.Join(h.cfg.Dir, "y.qmp"), nil, 0o600)
	h.cfg.Sockets = []string{"/nonexistent/z.sock"}
	if vms, err := h.VMs(t.Context()); err != nil || len(vms) != 0 {
		t.Errorf("got %+v, error %v", vms, err)
	}
}

// TestBadSpecs: what a peer may send must not get anything started.
func TestBadSpecs(t *testing.T) {
	h := newHost(t, shortDir(t), "a", nil)
	good := gateway.Spec{VM: "vm1", Token: testToken, UUID: guestUUID, Memory: 1 << 24, Args: []string{qemuProgram, "-m", "16M"}}
	for _, c := range []struct {
		name   string
		change func(*gateway.Spec)
	}{
		{"name", func(s *gateway.Spec) { s.VM = "../../etc/x" }},
		{"uuid", func(s *gateway.Spec) { s.UUID = "x" }},
		{"memory", func(s *gateway.Spec) { s.Memory = -1 }},
		{"program", func(s *gateway.Spec) { s.Args = []string{"/bin/sh", "-c", "reboot"} }},
		{"no command line", func(s *gateway.Spec) { s.Args = nil }},
		{"descriptor", func(s *gateway.Spec) { s.Args = append(s.Args, "-netdev", "tap,id=n,fd=3") }},
		{"mac", func(s *gateway.Spec) { s.NICs = []gateway.NIC{{MAC: "$(reboot)"}} }},
		{"tap", func(s *gateway.Spec) { s.NICs = []gateway.NIC{{Tap: "tap0; reboot"}} }},
		{"nics", func(s *gateway.Spec) { s.NICs = make([]gateway.NIC, maxNICs+1) }},
	} {
		s := good
		s.Args = slices.Clone(good.Args)
		c.change(&s)
		if sink, err := h.Prepare(t.Context(), s); !errors.Is(err, gateway.ErrInvalid) {
			t.Errorf("%s: sink %v, error %v", c.name, sink, err)
		}
	}
	if _, err := os.Stat(h.cfg.RunDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run directory exists: %v", err)
	}
	if _, err := h.Attach(t.Context(), gateway.Spec{Token: "../../x"}); !errors.Is(err, gateway.ErrInvalid) {
		t.Errorf("Attach: %v", err)
	}
}

// TestDistinct: a VM with two monitors is one, and so are those whose process cannot
// be seen; two processes are two.
func TestDistinct(t *testing.T) {
	at := func(path string, pid int, state gateway.RunState) found {
		return found{path: path, proc: launch.Process{PID: pid}, VMInfo: gateway.VMInfo{Name: "db1", State: state}}
	}
	for _, tt := range []struct {
		name string
		all  []found
		want int
	}{
		{"none", []found{at("a", 1, gateway.Running)}, 0},
		{"two sockets", []found{at("a", 1, gateway.Moved), at("b", 1, gateway.Moved)}, 1},
		{"two processes", []found{at("a", 1, gateway.Moved), at("b", 2, gateway.Moved), at("c", 1, gateway.Moved)}, 2},
		{"unseen", []found{at("a", 0, gateway.Moved), at("b", 0, gateway.Moved), at("c", 3, gateway.Moved)}, 1},
		{"another state", []found{at("a", 1, gateway.Moved), at("b", 2, gateway.Running)}, 1},
	} {
		if got := distinct(tt.all, "db1", gateway.Moved); len(got) != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, len(got), tt.want)
		}
	}
}
