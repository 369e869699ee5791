//go:build race

package vmstream

import "testing"

// long is for tests that go through many megabytes. This package starts no goroutine, so that
// there is no race to find in it, and takes ten times as long with the race detector: they
// run without (Makefile).
func long(t *testing.T) {
	t.Helper()
	t.Skip("megabytes, in one goroutine: runs without -race")
}
