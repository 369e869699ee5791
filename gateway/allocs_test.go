package gateway_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

// ours is the owner of what this module's own code allocates.
const ours = "longhaul"

// allocs counts the allocations of each call stack.
type allocs map[[32]uintptr]int64

// allocations are those so far. runtime.MemProfile tells what had been allocated
// at the collection before the last, so it collects twice.
func allocations(tb testing.TB) allocs {
	tb.Helper()
	runtime.GC()
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1<<16) // far more than there are
	n, ok := runtime.MemProfile(records, true)
	if !ok {
		tb.Fatalf("%d call stacks allocate, more than there is room for", n)
	}
	a := make(allocs, n)
	for _, r := range records[:n] {
		a[r.Stack0] += r.AllocObjects
	}
	return a
}

// since is what was allocated after before, by the owner of the code that asked
// for it; and how often the one place of ours did that did it most.
func (a allocs) since(before allocs) (owners map[string]int64, most int64) {
	owners = make(map[string]int64)
	for stack, n := range a {
		n -= before[stack]
		o := owner(stack)
		owners[o] += n
		if o == ours {
			most = max(most, n)
		}
	}
	return owners, most
}

// owner is the first on the stack, from the allocation upwards, that is not the
// standard library: "test", ours, or another module's path. "go" is what the
// runtime allocates for itself.
func owner(stack [32]uintptr) string {
	pcs := stack[:]
	if end := slices.Index(pcs, 0); end >= 0 {
		pcs = pcs[:end]
	}
	for frames := runtime.CallersFrames(pcs); ; {
		f, more := frames.Next()
		host, _, path := strings.Cut(f.Function, "/")
		switch {
		case strings.HasSuffix(f.File, "_test.go"), strings.Contains(f.Function, "/hvtest."):
			return "test"
		case strings.HasPrefix(f.Function, "github.com/longhaul-project/longhaul/"):
			return ours
		case path && strings.Contains(host, "."):
			parts := append(strings.SplitN(f.Function, "/", 4), "")
			name, _, _ := strings.Cut(parts[2], ".")
			return parts[0] + "/" + parts[1] + "/" + name
		case !more:
			return "go"
		}
	}
}
