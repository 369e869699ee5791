//go:build race

package tunnel

import "testing"

// slow is for simulations of minutes, of whose kind others run with the race detector, which
// takes ten times as long: these run without (Makefile).
func slow(t *testing.T) {
	t.Helper()
	t.Skip("minutes, and others of its kind are there: runs without -race")
}
