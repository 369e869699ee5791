//go:build race

package dedup

import "testing"

// underRace: code runs ten times slower, and sync.Pool drops what it is given.
const underRace = true

// long is for tests of many megabytes with one goroutine, in which there is no race to find:
// they run without the race detector (Makefile).
func long(t *testing.T) {
	t.Helper()
	t.Skip("megabytes, in one goroutine: runs without -race")
}
