package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestHostRoutesOfTheDead has a gateway die that has made a host route. The next one takes it
// away by the command that has made it, though its config does not have it any more.
func TestHostRoutesOfTheDead(t *testing.T) {
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	made := func() *Layer2 {
		l, err := NewLayer2(Layer2Config{Site: "a", Host: l2exttest.NewHost(), StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	r := l2ext.HostRoute{Segment: "prod", MAC: l2ext.MAC{0x52, 0x54, 0, 0, 0, 9}, IP: netip.MustParseAddr("10.0.0.9")}
	dead := made()
	dead.hooks["prod"] = []string{"/bin/sh", "-c", `echo "$@" >> "$0"`, calls}
	if err := dead.keepRoutes([]l2ext.HostRoute{r}); err != nil {
		t.Fatal(err)
	}
	next := made()
	left := next.leftRoutes(dir)
	if d := cmp.Diff([]l2ext.HostRoute{r}, left, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if _, err := next.route(t.Context(), "depart", r); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(calls); string(got) != "depart prod 52:54:00:00:00:09 10.0.0.9\n" {
		t.Errorf("called with %q, %v", got, err)
	}
	if err := next.keepRoutes(nil); err != nil {
		t.Error(err)
	}
	if left := made().leftRoutes(dir); len(left) != 0 {
		t.Errorf("in the end there are %v", left)
	}
}

// TestHostRoutesFileHarmed starts a gateway whose list of routes is harmed. It takes the routes that can be read,
// says what is wrong, sets the file aside and keeps its own.
func TestHostRoutesFileHarmed(t *testing.T) {
	const good = `{"segment":"prod","mac":"02:00:00:00:00:02","ip":"10.0.0.2"}`
	for _, tt := range []struct {
		text string
		left int
	}{
		{"", 0}, {"{", 0}, {"[]", 0}, {`{"routes":[` + good, 0}, {`{"routes":[` + good + `,7]}`, 1},
		{`{"routes":[{"segment":"prod","mac":"x","ip":"10.0.0.1"},` + good + `]}`, 1},
		{`{"routes":[{"segment":"prod","mac":"02:00:00:00:00:01","ip":"10"},` + good + `,{"mac":"02:00:00:00:00:01","ip":"10.0.0.1"}]}`, 1},
		{`{"routes":[{"segment":"prod","mac":"02:00:00:00:00:01"}]}`, 0},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, routesName)
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, log := logged(t, dir)
		if n := strings.Count(log.String(), "not all known"); n != 1 || len(l.left) != tt.left {
			t.Errorf("%q: %d routes; the log is %q", tt.text, len(l.left), log)
		}
		if c := l.ExamineRoutes(); len(c) != 1 || c[0].State != CheckFail || !strings.Contains(c[0].Detail, path) {
			t.Errorf("%q: the doctor says %+v", tt.text, c)
		}
		if got, err := os.ReadFile(path + ".bad"); string(got) != tt.text || err != nil {
			t.Errorf("%q: set aside: %q, %v", tt.text, got, err)
		}
		if again, log := logged(t, dir); !slices.Equal(again.left, l.left) || log.Len() > 0 {
			t.Errorf("%q: a run later there are %v; the log is %q", tt.text, again.left, log)
		}
		r := l2ext.HostRoute{Segment: "prod", IP: netip.MustParseAddr("10.0.0.1")}
		if err := l.keepRoutes([]l2ext.HostRoute{r}); err != nil {
			t.Error(err)
		}
		if got := l.leftRoutes(dir); !slices.Equal(got, []l2ext.HostRoute{r}) {
			t.Errorf("%q: kept %v", tt.text, got)
		}
	}
}

// loggedLayer2 is one that has been made, with what it has found.
type loggedLayer2 struct {
	*Layer2
	left []l2ext.HostRoute
}

func logged(t *testing.T, dir string) (loggedLayer2, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	l := &Layer2{orders: slog.New(slog.NewTextHandler(&log, nil))}
	return loggedLayer2{l, l.leftRoutes(dir)}, &log
}

// TestHostRoutesFileRefused has a file that cannot be opened, and one that cannot be set aside: the gateway runs, and an
// operator is told.
func TestHostRoutesFileRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, routesName)
	if err := os.Symlink(path, path); err != nil { // who opens it goes round in a circle
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path+".bad", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := NewLayer2(Layer2Config{Site: "a", Host: l2exttest.NewHost(), StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if c := l.ExamineRoutes(); len(c) != 1 || !strings.Contains(c[0].Detail, "too many levels of symbolic links") {
		t.Errorf("the doctor says %+v", c)
	}
	l.policies["prod"] = SegmentPolicy{HostRoute: []string{"/bin/true"}}
	if s := l.segmentView(l2ext.View{Segment: l2ext.Segment{Name: "prod"}}); !strings.Contains(s.Problem, "may stay") {
		t.Errorf("the segment says %q", s.Problem)
	}
}

// TestHostRouteHangs has a command that ends never, nor does what it has started: both are killed.
func TestHostRouteHangs(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	if err := syscall.Mkfifo(pid, 0o600); err != nil {
		t.Fatal(err)
	}
	l := &Layer2{hooks: map[string][]string{"prod": {"/bin/sh", "-c", `sleep 1000 & echo $! > "$0"; wait`, pid}}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one message
	go func() {
		_, err := l.route(ctx, "arrive", l2ext.HostRoute{Segment: "prod", IP: netip.MustParseAddr("10.0.0.1")})
		ended <- err
	}()
	text, err := os.ReadFile(pid) // waits for the command to write it
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	for began := time.Now(); isAlive(child); runtime.Gosched() {
		if time.Since(began) > time.Minute {
			t.Fatalf("process %d lives on", child)
		}
	}
}

// TestHostRouteLeavesBehind has commands that leave a process that holds their output. That of one that succeeds
// goes on, and the command has succeeded; that of one that fails is killed.
func TestHostRouteLeavesBehind(t *testing.T) {
	for _, status := range []string{"0", "1"} {
		pid := filepath.Join(t.TempDir(), "pid")
		o := order{argv: []string{"/bin/sh", "-c", `sleep 1000 & echo $! > "$0"; exit "$1"`, pid, status}, holding: time.Millisecond}
		err := o.run(t.Context())
		text, e := os.ReadFile(pid)
		if e != nil {
			t.Fatal(e)
		}
		child, e := strconv.Atoi(strings.TrimSpace(string(text)))
		if e != nil {
			t.Fatal(e)
		}
		defer syscall.Kill(child, syscall.SIGKILL)
		if succeeds := status == "0"; succeeds != (err == nil) {
			t.Errorf("status %s: %v", status, err)
		} else if succeeds {
			if !isAlive(child) {
				t.Errorf("status %s: what it has left is dead", status)
			}
			continue
		}
		for began := time.Now(); isAlive(child); runtime.Gosched() {
			if time.Since(began) > time.Minute {
				t.Fatalf("status %s: process %d lives on", status, child)
			}
		}
	}
}

// TestHostRouteIsNotWaitedFor: what a command that has succeeded has left holds up nobody who does not ask for it: it is told
// of when it has let go of the output, or when that is heard no more. In between it may talk.
func TestHostRouteIsNotWaitedFor(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const leave = `(read x < "$0"; echo heard) &`
	o := order{argv: []string{"/bin/sh", "-c", leave, fifo}, holding: time.Hour}
	if err := o.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-o.left:
		t.Error("what is left is taken to be gone")
	default:
	}
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	if <-o.left; string(o.output) != "heard\n" {
		t.Errorf("it has said %q", o.output)
	}
	o = order{argv: []string{"/bin/sh", "-c", leave, fifo}, holding: time.Millisecond}
	if err := o.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-o.left
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil { // it still waits for that, and ends
		t.Fatal(err)
	}
	o = order{argv: []string{"/no/such/command"}}
	if err := o.run(t.Context()); !errors.Is(err, os.ErrNotExist) || o.left != nil {
		t.Errorf("%v, %v", err, o.left)
	}
}

// TestHostRouteTalks has a command that prints a lot: it goes on, and of the gateway's memory it takes little.
func TestHostRouteTalks(t *testing.T) {
	o := order{argv: []string{"/bin/sh", "-c", "head -c 10000000 /dev/zero && exit 7"}, holding: time.Minute}
	if err := o.run(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 7") || len(o.output) != maxOrderOutput {
		t.Errorf("%d bytes, %v", len(o.output), err)
	}
	var h head
	for _, text := range []string{"ab", "", strings.Repeat("c", maxOrderOutput), "d"} {
		if n, err := h.Write([]byte(text)); n != len(text) || err != nil || len(h) > maxOrderOutput {
			t.Errorf("of %d bytes %d are written, with %v; it has %d", len(text), n, err, len(h))
		}
	}
	if want := "ab" + strings.Repeat("c", maxOrderOutput-2); string(h) != want {
		t.Errorf("it begins with %.10q", h)
	}
}

// isAlive tells whether a process runs; one that nobody has waited for does not.
func isAlive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	return !strings.Contains(string(b), ") Z ")
}

// FuzzHostRoutes reads files of routes that somebody else has written.
func FuzzHostRoutes(f *testing.F) {
	f.Add([]byte(`{"commands":{"prod":["/bin/true"]},"routes":[{"segment":"prod","mac":"02:00:00:00:00:01","ip":"fd00::1"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		kept, routes, err := readRoutes(bytes.NewReader(b))
		if len(kept.Routes) < len(routes) || err == nil && len(kept.Routes) != len(routes) || kept.Commands == nil {
			t.Error(fmt.Sprint(kept, routes, err))
		}
		for _, r := range routes {
			if !r.IP.IsValid() || r.Segment == "" {
				t.Errorf("%+v is no route", r)
			}
		}
	})
}
