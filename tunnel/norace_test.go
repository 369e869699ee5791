//go:build !race

package tunnel

import "testing"

// slow: see race_test.go.
func slow(*testing.T) {}
