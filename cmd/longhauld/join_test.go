package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// three is one machine of the pair: the two programs, and its directories.
type three struct {
	t    *testing.T
	bin  string
	dir  string // /etc/longhaul of the machine
	run  string // short: it holds sockets
	port string
	stop func() // the gateway
}

// buildBoth builds longhauld and longhaul.
func buildBoth(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, ".", "../longhaul")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as "make build" does: most is built already
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return bin
}

func newThree(t *testing.T, bin string) *three {
	t.Helper()
	run, err := os.MkdirTemp("", "lh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return &three{t: t, bin: bin, dir: filepath.Join(t.TempDir(), "etc"), run: run, port: port}
}

// do runs longhaul and returns what it writes to stdout.
func (m *three) do(args ...string) (string, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(m.bin, "longhaul"), args...)
	cmd.Env = append(os.Environ(), "LONGHAUL_SOCKET="+filepath.Join(m.run, "api.sock"))
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("longhaul %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out), err
}

// must is do of what has to work, without the end of the line.
func (m *three) must(args ...string) string {
	m.t.Helper()
	out, err := m.do(args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// serve starts the gateway on the config that init or join wrote, with the
// directories of this machine.
func (m *three) serve() {
	m.t.Helper()
	path := filepath.Join(m.dir, "longhauld.yaml")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	fmt.Fprintf(f, "\ndir: %s\nrun_dir: %s\n", filepath.Join(m.dir, "state"), m.run)
	if err := f.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

// start runs the gateway until stop, or the end of the test.
func (m *three) start() {
	m.t.Helper()
	cmd := exec.Command(filepath.Join(m.bin, "longhauld"), "--config", filepath.Join(m.dir, "longhauld.yaml"))
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.stop = sync.OnceFunc(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			m.t.Errorf("longhauld ends with %v: %s", err, &log)
		}
	})
	m.t.Cleanup(m.stop)
}

// status waits until longhaul status says what is wanted.
func (m *three) status(want func(peer map[string]any) bool) {
	m.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	var out string
	var err error
	for time.Now().Before(deadline) {
		out, err = m.do("status", "--json")
		var st struct{ Peers []map[string]any }
		if err == nil && json.Unmarshal([]byte(out), &st) == nil && len(st.Peers) == 1 && want(st.Peers[0]) {
			return
		}
		<-time.After(50 * time.Millisecond) // asked again until it is so
	}
	m.t.Fatalf("status stays %s, %v", out, err)
}

// TestThreeCommands is how an operator founds a fleet of two.
func TestThreeCommands(t *testing.T) {
	bin := buildBoth(t)
	a, b := newThree(t, bin), newThree(t, bin)
	a.must("init", "--site", "a", "--address", "127.0.0.1:"+a.port, "--dir", a.dir)
	a.serve()
	a2 := func() string { // the API is there a moment after the start
		for deadline := time.Now().Add(2 * time.Minute); ; {
			out, err := a.do("status")
			if err == nil || time.Now().After(deadline) {
				return out
			}
		}
	}()
	if !strings.Contains(a2, "a") {
		t.Fatalf("status: %s", a2)
	}
	token := a.must("token", "create", "--site", "b", "--ttl", "1h", "--dir", a.dir)
	if strings.Contains(token, "\n") {
		t.Errorf("a token of more than one line: %q", token)
	}
	if out, err := a.do("token", "create", "--site", "a"); err == nil || !strings.Contains(err.Error(), "a site has one gateway") {
		t.Errorf("a token for its own site: %s, %v", out, err)
	}
	b.must("join", token, "--dir", b.dir, "--address", "127.0.0.1:"+b.port)
	b.serve()
	alive := func(site string) func(map[string]any) bool {
		return func(p map[string]any) bool { return p["site"] == site && p["alive"] == true && p["member"] == "alive" }
	}
	a.status(alive("b"))
	b.status(alive("a"))

	c := newThree(t, bin)
	if out, err := c.do("join", token, "--dir", c.dir); err == nil {
		t.Errorf("a token works twice: %s", out)
	}
	a.must("revoke", "b", "--yes")
	a.status(func(p map[string]any) bool { return p["site"] == "b" && p["alive"] == false && p["why"] != "" })
}

// until asks until what it waits for has come.
func until(t *testing.T, what string, ask func() (string, bool)) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		got, ok := ask()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come: %s", what, got)
		}
	}
}
