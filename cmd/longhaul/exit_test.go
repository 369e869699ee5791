package main

import (
	"bytes"
	"errors"
	"testing"
)

// An error shows names of files and what peers say: it may have lines, and nothing else
// that moves the cursor.
func TestReportIsClean(t *testing.T) {
	var out bytes.Buffer
	if code := report(&out, false, errors.New("reading \x1b[2J\u009b1m\rx\nand y")); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if got, want := out.String(), "longhaul: reading  [2J 1m x\n  and y\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
