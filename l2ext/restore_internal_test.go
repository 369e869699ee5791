package l2ext

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// TestStay tells by example, at site "b", where a host has stayed before it changes.
func TestStay(t *testing.T) {
	const long, short = takenWithin + 1, settleTime
	type step struct {
		after time.Duration // that it was where the step before has put it
		site  string
		want  string // where it stayed, after the step
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"new here for long", []step{{0, "b", ""}, {long, "a", "b"}, {short, "b", "b"}}},
		{"new here for a moment", []step{{0, "b", ""}, {short, "a", "a"}, {short, "b", "a"}, {short, "c", "a"}}},
		{"new there for a moment", []step{{0, "a", ""}, {short, "b", ""}, {short, "c", "c"}}},
		{"new there for long", []step{{0, "a", ""}, {long, "b", "a"}, {short, "c", "a"}, {long, "b", "c"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab, now := newTable("b"), time.Unix(1000, 0)
			for i, s := range tt.steps {
				now = now.Add(s.after)
				if s.site == "b" {
					tab.see(now, vm, false)
				} else {
					tab.accept(now, rec(uint64(i+1), announce.Learned, s.site, ""))
				}
				if b := tab.byMAC[vm]; b.rec.Site != s.site || b.stayed != s.want {
					t.Fatalf("step %d: at %s, stayed %q; want %s, %q", i, b.rec.Site, b.stayed, s.site, s.want)
				}
			}
		})
	}
}
