package api_test

import (
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/longhaul-project/longhaul/gateway/api"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api.sock")
	ln, err := api.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := api.Listen(path, ""); err == nil || !strings.Contains(err.Error(), "another gateway answers") {
		t.Errorf("a second gateway: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the second gateway has removed the first one's socket: %v", err)
	}

	// A gateway that is killed leaves its socket behind.
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if ln, err = api.Listen(path, ""); err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	ln.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is there after a clean end: %v", err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(path, ""); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
	if _, err := api.Listen(filepath.Join(dir, "none", "api.sock"), ""); err == nil {
		t.Error("in a directory that is not there: no error")
	}
}

func TestListenGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	if _, err := api.Listen(path, "no-such-group-here"); err == nil {
		t.Error("unknown group: no error")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a socket that could not be restricted is left open: %v", err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := api.Listen(path, g.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || st.Gid != uint32(os.Getgid()) {
		t.Errorf("group %d, %v", st.Gid, err)
	}
}
