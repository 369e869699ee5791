//go:build race

package gateway_test

// raceEnabled: the race detector allocates for itself.
const raceEnabled = true
