//go:build !race

package dedup

import "testing"

const underRace = false

// long: see race_test.go.
func long(*testing.T) {}
