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
		{"new there for a moment", []step{{0, "a", ""}, {short, "b", "a"}, {short, "c", "a"}}},
		{"new there for long", []step{{0, "a", ""}, {long, "b", "a"}, {short, "c", "a"}, {long, "b", "c"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab, now := newTable("b"), time.Unix(1000, 0)
			for i, s := range tt.steps {
				now = now.Add(s.after)
				if s.site == "b" {
					tab.see(now, vm, false)
				} else {
					tab.accept(now, s.site, rec(uint64(i+1), announce.Learned, s.site, ""))
				}
				if b := tab.byMAC[vm]; b.rec.Site != s.site || b.stayed != s.want {
					t.Fatalf("step %d: at %s, stayed %q; want %s, %q", i, b.rec.Site, b.stayed, s.site, s.want)
				}
			}
		})
	}
}

// TestRestoreIsNoMove has a cable come and go, with a host of site "a" that site "b" takes
// and gives back each time: neither of them, nor another site, finds that it moves too often.
func TestRestoreIsNoMove(t *testing.T) {
	const times = maxMoves - 1 // each of them a claim, which the other sites count
	now := time.Unix(1000, 0)
	tabs := map[string]*table{"a": newTable("a"), "b": newTable("b"), "c": newTable("c")}
	tell := func(from string, r announce.Record) {
		for _, tab := range tabs {
			tab.accept(now, from, r)
		}
	}
	tabs["a"].see(now, vm, false)
	tell("a", tabs["a"].byMAC[vm].rec)
	for i := range times {
		now = now.Add(moveWindow / (maxMoves + 1))
		tabs["b"].see(now, vm, false)
		tell("b", tabs["b"].byMAC[vm].rec)
		now = now.Add(time.Second)
		restored := tabs["b"].restore(now, "a")
		if len(restored) != 1 || restored[0].Site != "a" {
			t.Fatalf("time %d: restored %v", i, restored)
		}
		tell("b", restored[0])
		for site, tab := range tabs {
			if b := tab.byMAC[vm]; b.rec.Site != "a" || !b.frozen.IsZero() {
				t.Errorf("time %d: site %s has %s, frozen until %v", i, site, show(tab), b.frozen)
			}
		}
	}
	if b := tabs["b"].byMAC[vm]; len(b.moves) != 0 {
		t.Errorf("b counts %d moves", len(b.moves))
	}
}

// TestHomeThatIsGone: a host that a job has left at a site is not brought back there once
// the site has no part in the segment any more.
func TestHomeThatIsGone(t *testing.T) {
	m, err := New(Config{Site: "a", Host: &sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	old := m.keepOrMake(nil, Segment{Name: "prod", VNI: 100, Sites: []string{"b", "c"}})
	now := time.Unix(1000, 0)
	old.table.accept(now, "c", rec(1, announce.Moved, "c", "j"))
	old.table.accept(now.Add(2*jobFence), "b", rec(2, announce.Learned, "b", ""))
	for _, tt := range []struct {
		sites []string
		want  string
	}{{[]string{"b", "c"}, "c"}, {[]string{"b"}, ""}} {
		seg := m.keepOrMake(old, Segment{Name: "prod", VNI: 100, Sites: tt.sites})
		b := seg.table.byMAC[vm]
		if b == nil || b.home != tt.want || (b.homeJob == "") != (tt.want == "") {
			t.Errorf("sites %v: %+v, want home %q", tt.sites, b, tt.want)
		}
	}
}
