package gateway

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	left, err := next.leftRoutes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]l2ext.HostRoute{r}, left, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if err := next.route(t.Context(), "depart", r); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(calls); string(got) != "depart prod 52:54:00:00:00:09 10.0.0.9\n" {
		t.Errorf("called with %q, %v", got, err)
	}
	if err := next.keepRoutes(nil); err != nil {
		t.Error(err)
	}
	if left, err := made().leftRoutes(dir); len(left) != 0 || err != nil {
		t.Errorf("in the end there are %v, %v", left, err)
	}
}

// TestHostRoutesFileHarmed starts a gateway whose list of routes cannot be read, says so, and keeps its own.
func TestHostRoutesFileHarmed(t *testing.T) {
	for _, text := range []string{
		"", "{", "[]", `{"routes":[{"segment":"prod","mac":"x","ip":"10.0.0.1"}]}`, `{"routes":[{"segment":"prod","mac":"02:00:00:00:00:01","ip":"10"}]}`,
		`{"routes":[{"segment":"prod","mac":"02:00:00:00:00:01"}]}`, `{"routes":[{"mac":"02:00:00:00:00:01","ip":"10.0.0.1"}]}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, routesName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		l, err := NewLayer2(Layer2Config{Site: "a", Host: l2exttest.NewHost(), StateDir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), "are not known") {
			t.Errorf("%q: the log is %q", text, &log)
		}
		r := l2ext.HostRoute{Segment: "prod", IP: netip.MustParseAddr("10.0.0.1")}
		if err := l.keepRoutes([]l2ext.HostRoute{r}); err != nil {
			t.Error(err)
		}
		if got, err := l.leftRoutes(dir); err != nil || !slices.Equal(got, []l2ext.HostRoute{r}) {
			t.Errorf("%q: kept %v, %v", text, got, err)
		}
	}
}

// FuzzHostRoutes reads files of routes that somebody else has written.
func FuzzHostRoutes(f *testing.F) {
	f.Add([]byte(`{"commands":{"prod":["/bin/true"]},"routes":[{"segment":"prod","mac":"02:00:00:00:00:01","ip":"fd00::1"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		kept, routes, err := readRoutes(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(kept.Routes) != len(routes) || kept.Commands == nil {
			t.Error(fmt.Sprint(kept, routes))
		}
	})
}
