package gateway_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine is left after all gateways have stopped.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// countGoroutines counts those that have frame on their stack.
func countGoroutines(frame string) (n int) {
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	for g := range bytes.SplitSeq(b, []byte("\n\n")) {
		if strings.Contains(string(g), frame) {
			n++
		}
	}
	return n
}

// noChannels waits until the links of two sites carry no channel more than want.
func noChannels(t testing.TB, want int, sites ...*site) {
	t.Helper()
	for _, s := range sites {
		for _, l := range s.node.Links() {
			deadline := time.Now().Add(busyTime)
			for l.State().Channels > want && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
			if n := l.State().Channels; n > want {
				t.Errorf("%s keeps %d channels to %s, want %d", s.name, n, l.Site(), want)
			}
		}
	}
}
