//go:build race

package dedup

// underRace: code runs ten times slower, and sync.Pool drops what it is given.
const underRace = true
