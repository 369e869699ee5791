//go:build race

package congestion

// underRace: code runs ten times slower. Simulations are one goroutine each, in which there
// is no race to find; the longest run without (Makefile).
const underRace = true
