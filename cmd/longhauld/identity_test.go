package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// TestRenewOverTheLink: a gateway without the CA's key has its certificate renewed
// by the one that has it, over their link, and the link stays.
func TestRenewOverTheLink(t *testing.T) {
	port := freePort(t)
	dirs := map[string]string{"a": filepath.Join(t.TempDir(), "a"), "b": filepath.Join(t.TempDir(), "b")}
	if err := pki.Init(dirs["a"], "fleet", "a", "gw1"); err != nil {
		t.Fatal(err)
	}
	id, err := pki.Load(dirs["a"])
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Provision(dirs["b"], "b", "gw1"); err != nil {
		t.Fatal(err)
	}
	a := runDaemon(t, dirs["a"], fmt.Sprintf("site: a\nlisten: %q\n", port))
	b := runDaemon(t, dirs["b"], fmt.Sprintf("site: b\nlisten: 127.0.0.1:0\npeers:\n  - {site: a, address: [%q]}\n", port))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := b.node.Link("a").WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*daemon{"a": a, "b": b} {
		cert := filepath.Join(dirs[name], "site.crt")
		before, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.renewOnce(ctx); err != nil {
			t.Errorf("gateway of site %s: %v", name, err)
		}
		if after, err := os.ReadFile(cert); err != nil || bytes.Equal(after, before) {
			t.Errorf("gateway of site %s has its old certificate, %v", name, err)
		}
	}
	// Who has not the CA's key is told so, and not that something else is missing.
	if _, _, err := (&backend{d: b}).CreateToken(ctx, "c", time.Hour); !errors.Is(err, pki.ErrNotFounder) {
		t.Errorf("a token of site b: %v", err)
	}
	if s := b.node.Link("a").State(); !s.Up {
		t.Errorf("the link is down: %s", s.Why)
	}
}

// freePort finds a UDP port of the loopback.
func freePort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

// runDaemon runs a gateway with an identity and a config, which says nothing of
// directories, until the test ends.
func runDaemon(t *testing.T, identity, text string) *daemon {
	t.Helper()
	run, err := os.MkdirTemp("", "lh") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	cfg, err := config.Parse("test", fmt.Appendf(nil, "%spki: %s\ndir: %s\nrun_dir: %s\n", text, identity, t.TempDir(), run))
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon("test", cfg, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1) // run's one result
	go func() { ended <- d.run(ctx, cfg) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d
}
