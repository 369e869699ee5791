//go:build !race

package congestion

import "testing"

// long: see race_test.go.
func long(*testing.T) {}
