//go:build !race

package gateway

import "testing"

// RaceEnabled: see race_test.go.
const RaceEnabled = false

// Slow: see race_test.go.
func Slow(*testing.T) {}
