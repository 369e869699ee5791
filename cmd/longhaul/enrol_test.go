package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// command runs the command with no gateway behind its socket.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	a := newApp()
	a.stdin, a.stdout, a.stderr = strings.NewReader(""), &out, &errs
	a.getenv = func(string) string { return filepath.Join(t.TempDir(), "none") }
	code = a.run(args)
	return out.String(), errs.String(), code
}

// found runs the link of a founding gateway, and nothing else of it.
func found(t *testing.T, dir, addr string) {
	t.Helper()
	id, err := pki.Load(filepath.Join(dir, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	enroller := &pki.Enroller{ID: id, Peers: func() []pki.Peer {
		return []pki.Peer{{Site: "a", Addrs: []string{addr}}}
	}}
	node, err := tunnel.New(tunnel.Config{
		Site: "a", Gateway: "gw1", Listen: addr, ServerTLS: id.ServerTLS(), ClientTLS: id.ClientTLS(),
		Enrol: func(ctx context.Context, conn net.Conn, cs tls.ConnectionState) {
			if err := enroller.Handle(ctx, conn, cs); err != nil {
				t.Logf("enrolment: %v", err)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // the one result of Run
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("node: %v", err)
		}
	})
}

// freeAddr is a UDP address of the loopback that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

// TestThreeCommands makes a pair: init, token create, join, over real QUIC.
func TestThreeCommands(t *testing.T) {
	dirA, dirB, addr := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b"), freeAddr(t)
	if _, errs, code := command(t, "init", "--site", "a", "--address", addr, "--dir", dirA); code != 0 {
		t.Fatalf("init: %d %s", code, errs)
	}
	token, errs, code := command(t, "token", "create", "--site", "b", "--dir", dirA)
	if code != 0 {
		t.Fatalf("token create: %d %s", code, errs)
	}
	if strings.Count(token, "\n") != 1 {
		t.Errorf("the token is not one line: %q", token)
	}
	found(t, dirA, addr)
	out, errs, code := command(t, "join", strings.TrimSpace(token), "--dir", dirB)
	if code != 0 || !strings.Contains(errs, "Joined; this is site b.") || !strings.Contains(out, "longhauld.yaml") {
		t.Fatalf("join: %d\n%s\n%s", code, out, errs)
	}

	conf, err := config.Load(filepath.Join(dirB, "longhauld.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if conf.Site != "b" || len(conf.Peers) != 1 || conf.Peers[0].Site != "a" || conf.Peers[0].Address[0] != addr {
		t.Errorf("config of b: %+v", conf)
	}
	id, err := pki.Load(conf.PKI)
	if err != nil || id.Site() != "b" || id.Founder() {
		t.Errorf("identity of b: %v", err)
	}

	// The token is used up, and the second machine's config is its own.
	if _, errs, code := command(t, "join", strings.TrimSpace(token), "--dir", filepath.Join(t.TempDir(), "c")); code != exitFailed || !strings.Contains(errs, "used already") {
		t.Errorf("second use: %d %s", code, errs)
	}
	if _, errs, code := command(t, "join", strings.TrimSpace(token), "--dir", dirB); code != exitFailed || !strings.Contains(errs, "is there already") {
		t.Errorf("join again: %d %s", code, errs)
	}
}

// Nobody answers: nothing but a key is left behind, so that the same command
// works later.
func TestJoinAgainLater(t *testing.T) {
	dirA, dirB, addr := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b"), freeAddr(t)
	command(t, "init", "--site", "a", "--address", addr, "--dir", dirA)
	token, _, _ := command(t, "token", "create", "--site", "b", "--dir", dirA)
	a := newApp()
	var errs bytes.Buffer
	a.stdout, a.stderr = &errs, &errs
	a.enrol = func(context.Context, pki.Request) (*pki.Joined, error) { return nil, errors.New("nobody there") }
	if code := a.run([]string{"join", strings.TrimSpace(token), "--dir", dirB}); code != exitFailed {
		t.Errorf("join without a founder: %d %s", code, &errs)
	}
	if _, err := os.Stat(filepath.Join(dirB, "longhauld.yaml")); !os.IsNotExist(err) {
		t.Errorf("a config is left behind: %v", err)
	}
	found(t, dirA, addr)
	if _, errs, code := command(t, "join", strings.TrimSpace(token), "--dir", dirB); code != 0 {
		t.Errorf("join later: %d %s", code, errs)
	}
}
