package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// TestHelp keeps the help texts in testdata/help, so that a change is seen in
// review, and checks that each command has what CONVENTIONS 32 asks for.
func TestHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		t.Run(strings.ReplaceAll(c.CommandPath(), " ", "-"), func(t *testing.T) { checkHelp(t, c) })
		for _, sub := range c.Commands() {
			if sub.Name() != "completion" && sub.Name() != "help" { // cobra's
				visit(sub)
			}
		}
	}
	visit(newApp().rootCmd())
}

func checkHelp(t *testing.T, c *cobra.Command) {
	var out, errs bytes.Buffer
	a := newApp()
	a.stdout, a.stderr = &out, &errs
	args := append([]string{"help"}, strings.Fields(c.CommandPath())[1:]...)
	if code := a.run(args); code != 0 || errs.Len() > 0 {
		t.Fatalf("help: exit code %d, %s", code, &errs)
	}
	if c.Short == "" || c.Runnable() && c.Example == "" {
		t.Error("has no short text or no example")
	}
	for line := range strings.Lines(out.String()) {
		if n := len(strings.TrimRight(line, "\n")); n > 110 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	golden := filepath.Join("testdata", "help", strings.ReplaceAll(c.CommandPath(), " ", "-")+".txt")
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("the help has changed; if that is meant: go test ./cmd/longhaul -update\n%s", d)
	}
}

// The table of exit codes tells of each code that there is.
func TestExitTopic(t *testing.T) {
	for _, code := range []string{"0", "1", "2", "3", "4", "5", "6", "7", "130"} {
		if !strings.Contains(exitTopic, "\n"+strings.Repeat(" ", 5-len(code))+code+"  ") {
			t.Errorf("no %s", code)
		}
	}
}
