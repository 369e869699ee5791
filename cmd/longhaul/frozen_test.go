package main

import (
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
)

// TestFrozenIsShown has a segment's bindings say at which sites they are frozen, also while a job moves one.
func TestFrozenIsShown(t *testing.T) {
	for _, tt := range []struct {
		b    gateway.Binding
		want string
	}{
		{gateway.Binding{State: "confirmed"}, "confirmed"},
		{gateway.Binding{State: "frozen", FrozenAt: []string{"b"}}, "frozen at b"},
		{gateway.Binding{State: "pending", FrozenAt: []string{"a", "b"}}, "pending, frozen at a,b"},
	} {
		var out strings.Builder
		if err := writeSegment(&out, gateway.Segment{Bindings: []gateway.Binding{tt.b}}); err != nil {
			t.Fatal(err)
		}
		rows := strings.Split(strings.TrimSpace(out.String()), "\n")
		if row := rows[len(rows)-1]; !strings.Contains(row, " "+tt.want+"  ") {
			t.Errorf("%+v: got %q, want %q in it", tt.b, row, tt.want)
		}
	}
}
