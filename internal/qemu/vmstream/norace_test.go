//go:build !race

package vmstream

import "testing"

// long: see race_test.go.
func long(*testing.T) {}
