//go:build race

package gateway

import "testing"

// RaceEnabled: the race detector allocates for itself.
const RaceEnabled = true

// Slow is for simulations of minutes, of whose kind others run with the race detector, which
// takes ten times as long: these run without (Makefile).
func Slow(t *testing.T) {
	t.Helper()
	t.Skip("minutes, and others of its kind are there: runs without -race")
}
