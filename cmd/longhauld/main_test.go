package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

func TestCommandLine(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.yaml")
	if err := os.WriteFile(good, []byte("site: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("site: a\nlink:\n  rte: 5Mbit\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args        []string
		code        int
		out, errOut string
	}{
		{[]string{"--help"}, exitOK, "exit codes", ""},
		{[]string{"--version"}, exitOK, version, ""},
		{[]string{"--no-such"}, exitUsage, "", "no-such"},
		{[]string{"serve"}, exitUsage, "", `unexpected argument "serve"`},
		{[]string{"--check-config", "--config", good}, exitOK, "right", ""},
		{[]string{"--check-config", "--config", bad}, exitUsage, "", "bad.yaml:3:"},
		{[]string{"--config", "/no/such/file"}, exitUsage, "", "/no/such/file"},
	} {
		var out, errOut bytes.Buffer
		if code := run(c.args, &out, &errOut); code != c.code {
			t.Errorf("%q ends with %d, want %d; %s", c.args, code, c.code, &errOut)
		}
		if !strings.Contains(out.String(), c.out) || !strings.Contains(errOut.String(), c.errOut) {
			t.Errorf("%q writes %q and %q, want %q and %q in them", c.args, &out, &errOut, c.out, c.errOut)
		}
	}
}

func TestJoinedSitesSurviveARestart(t *testing.T) {
	cfg := config.Config{Dir: t.TempDir(), Peers: []config.Peer{{Site: "b", Address: []string{"b.example:7447"}}}}
	p, err := openPeers(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, peer := range []tunnel.Peer{{Site: "c", Addrs: []string{"old:1"}}, {Site: "c", Addrs: []string{"c.example:7447"}}, {Site: "b", Addrs: []string{"elsewhere:1"}}} {
		if err := p.add(peer); err != nil {
			t.Fatal(err)
		}
	}
	if p, err = openPeers(cfg); err != nil {
		t.Fatal(err)
	}
	if got := p.sites(); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("sites after a restart: %v", got)
	}
	for _, peer := range p.list() {
		want := map[string]string{"b": "b.example:7447", "c": "c.example:7447"}[peer.Site]
		if !slices.Equal(peer.Addrs, []string{want}) {
			t.Errorf("site %s at %v, want %s", peer.Site, peer.Addrs, want)
		}
	}
	if err := os.WriteFile(p.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPeers(cfg); err == nil || !strings.Contains(err.Error(), p.path) {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestResetKeyStays(t *testing.T) {
	dir := t.TempDir()
	a, err := resetKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := resetKey(dir); err != nil || *a != *b {
		t.Errorf("a second start has another key, %v", err)
	}
	if st, err := os.Stat(filepath.Join(dir, "reset.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", st, err)
	}
}

// TestReadyWhenItListens: systemd is not told that a gateway is ready whose port
// another process has.
func TestReadyWhenItListens(t *testing.T) {
	told := systemd(t)
	port, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := pki.Init(filepath.Join(dir, "pki"), "fleet", "a", "gw1"); err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "lh") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	cfg, err := config.Parse("test", fmt.Appendf(nil, "site: a\npki: %[1]s/pki\ndir: %[1]s/state\nrun_dir: %[2]s\nlisten: %[3]q\n", dir, run, port.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), "test", cfg, io.Discard); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("a port that is taken: %v", err)
	}
	if got := told(); got != "STOPPING=1" {
		t.Errorf("systemd hears first %q", got)
	}
	port.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // serve's one result
	go func() { ended <- serve(ctx, "test", cfg, io.Discard) }()
	if got := told(); got != "READY=1" {
		t.Errorf("systemd hears %q", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// systemd takes notifications, one for each call of what it returns.
func systemd(t *testing.T) (told func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("waiting for a notification: %v", err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	told := systemd(t)
	notify("READY=1")
	if got := told(); got != "READY=1" {
		t.Errorf("systemd hears %q", got)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	notify("READY=1") // nobody is there, and nobody waits
	if got := reloadingNow(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") || strings.HasSuffix(got, "=0") {
		t.Errorf("reloading: %q", got)
	}
}
