package nstest

import "os"

// TB is what New needs of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Cleanup(func())
}

// NeedRoot skips the test unless it runs as root. When LONGHAUL_NO_SKIP is set
// the test fails instead: CI sets it, so that no test can skip itself there.
func NeedRoot(t TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root")
	}
}

// Skip skips the test for the given reason, or fails it when LONGHAUL_NO_SKIP
// is set.
func Skip(t TB, reason string) {
	t.Helper()
	if os.Getenv("LONGHAUL_NO_SKIP") != "" {
		t.Fatalf("would skip, but LONGHAUL_NO_SKIP is set: %s", reason)
	}
	t.Skipf("skipped: %s", reason)
}
