//go:build !race

package dedup

const underRace = false
