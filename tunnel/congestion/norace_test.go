//go:build !race

package congestion

// underRace: see race_test.go.
const underRace = false
