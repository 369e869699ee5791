//go:build race

package congestion

import "testing"

// long is for simulations of minutes. Each is one goroutine, in which there is no race to find,
// and takes ten times as long with the race detector: they run without (Makefile).
func long(t *testing.T) {
	t.Helper()
	t.Skip("one goroutine, for minutes: runs without -race")
}
