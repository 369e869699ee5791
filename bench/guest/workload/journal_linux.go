package main

import (
	"fmt"
	"sync"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/guest/pages"
)

// journal holds the version that each page should have. It moves with the
// guest and could be damaged like any page, so it is kept twice, the second
// time inverted, with a sum over all of it that changes with every entry.
type journal struct {
	mu       sync.Mutex // guards what follows and the pages themselves
	versions []pages.Version
	inverted []pages.Version
	sum      uint64
}

// begin makes a journal of n pages in version 0.
func (j *journal) begin(n int) {
	j.versions, j.inverted = make([]pages.Version, n), make([]pages.Version, n)
	for i := range j.versions {
		j.inverted[i] = ^pages.Version(0)
		j.sum += entry(i, 0)
	}
}

// set notes that page i now has version v.
func (j *journal) set(i int, v pages.Version) {
	j.sum += entry(i, v) - entry(i, j.versions[i])
	j.versions[i], j.inverted[i] = v, ^v
}

// entry is the share of one page in the sum.
func entry(i int, v pages.Version) uint64 {
	z := uint64(i)<<32 | uint64(v)
	z = (z ^ z>>31) * 0x7fb5d329728ea185
	return z ^ z>>27
}

// verify counts the entries that contradict themselves.
func (j *journal) verify(v *control.Verdict) (wrong int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var sum uint64
	for i, version := range j.versions {
		if j.inverted[i] != ^version {
			wrong++
			note(v, "journal: entry %d is %#x, its inverse %#x", i, version, j.inverted[i])
		}
		sum += entry(i, version)
	}
	if sum != j.sum && wrong == 0 { // both copies are old
		wrong = 1
		note(v, "journal: sums to %#x, not %#x", sum, j.sum)
	}
	return wrong
}

// note keeps the first few faults.
func note(v *control.Verdict, format string, args ...any) {
	if len(v.First) < 8 {
		v.First = append(v.First, fmt.Sprintf(format, args...))
	}
}
