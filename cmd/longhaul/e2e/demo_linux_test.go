package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/demo"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// demoTime bounds a demo of the size that is tested here.
const demoTime = 4 * time.Minute

// TestDemo runs the demo of a small guest as "longhaul demo --json --moves 2"
// does, and interrupts another one in the middle of its move. Nothing is left.
func TestDemo(t *testing.T) {
	if err := lab.Check(); err != nil {
		nstest.Skip(t, err.Error())
	}
	o := demo.Options{
		// A line that a gateway under the race detector can fill: over a faster one it
		// rightly compresses less, so as not to be what the move waits for.
		Link: lab.Link{Rate: 50e6, RTT: 30 * time.Millisecond, Loss: 0.0005}, Memory: demo.MinMemory, Moves: 2, Plain: true, JSON: true,
		Gateway: os.Getenv(binaryMark), Emulator: []string{"/proc/self/exe"},
	}
	t.Run("whole", func(t *testing.T) { wholeDemo(t, o) })
	t.Run("interrupted", func(t *testing.T) { interruptedDemo(t, o) })
}

func wholeDemo(t *testing.T, o demo.Options) {
	ctx, cancel := context.WithTimeout(t.Context(), demoTime)
	defer cancel()
	doc, said, err := runDemo(ctx, o)
	if err != nil {
		t.Errorf("%v\nit said:\n%s", err, said)
	}
	nothingLeft(t)
	t.Logf("%s", doc)
	checkKeys(t, doc)
}

// checkKeys looks for what scripts rely on.
func checkKeys(t *testing.T, doc []byte) {
	t.Helper()
	var got struct {
		OK                        bool
		VM, Link, Longhaul, Plain map[string]any
		Moves                     []map[string]any
		Drift                     map[string]map[string]any
	}
	if err := json.Unmarshal(doc, &got); err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	if !got.OK || len(got.Moves) != 2 || len(got.VM) == 0 || len(got.Link) == 0 || len(got.Drift["first"]) != 2 || len(got.Drift["last"]) != 2 {
		t.Errorf("the document is not whole: %s", doc)
	}
	for name, part := range map[string]map[string]any{"longhaul": got.Longhaul, "plain": got.Plain} {
		for _, key := range []string{
			"total_ms", "downtime_ms", "longest_gap_ms", "pings_sent", "pings_lost", "session_alive", "same_ip", "same_mac",
			"pages_verified", "pages_wrong", "logical_bytes", "wire_bytes", "rounds",
		} {
			if _, ok := part[key]; !ok {
				t.Errorf("%s has no %s: %s", name, key, doc)
			}
		}
	}
}

// interruptedDemo is Ctrl-C while memory crosses.
func interruptedDemo(t *testing.T, o demo.Options) {
	ctx, interrupt := context.WithTimeout(t.Context(), demoTime)
	defer interrupt()
	crashed := filepath.Join(os.TempDir(), "lh-99999999-1-0000") // folder of a lab whose process is gone
	if err := os.Mkdir(crashed, 0o700); err != nil {
		t.Fatal(err)
	}
	o.Show = func(ev gateway.JobEvent) {
		if ev.Job.State == gateway.JobMoving {
			interrupt()
		}
	}
	doc, said, err := runDemo(ctx, o)
	if !errors.Is(err, context.Canceled) || len(doc) > 0 {
		t.Errorf("%v, document %q\nit said:\n%s", err, doc, said)
	}
	nothingLeft(t)
	if _, err := os.Stat(crashed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash had left is still there: %v", err)
	}
}

func runDemo(ctx context.Context, o demo.Options) (doc []byte, said string, err error) {
	var out, progress bytes.Buffer
	o.Stdout, o.Stderr = &out, &progress
	err = demo.Run(ctx, o)
	return out.Bytes(), progress.String(), err
}

// nothingLeft checks that no lab of this process is left: no namespace, no
// folder, no process.
func nothingLeft(t *testing.T) {
	t.Helper()
	mine := fmt.Sprintf("lh-%d-", os.Getpid())
	for _, pattern := range []string{"/run/netns/" + mine + "*", filepath.Join(os.TempDir(), mine+"*")} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), mine) {
			t.Errorf("left behind: %s: %q", path, line)
		}
	}
}
