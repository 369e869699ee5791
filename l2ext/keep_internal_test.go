package l2ext

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// TestKeep tells by example which claims of site "a", to whose LAN a cable was found at a
// time, do not take a host from site "b".
func TestKeep(t *testing.T) {
	start := time.Unix(1000, 0)
	claim := rec(1, announce.Learned, "a", "")
	for _, tt := range []struct {
		name  string
		came  time.Duration // before the cable was found
		alter func(*binding, *announce.Record)
		want  bool
	}{
		{"a host of here", takenWithin + 1, nil, true},
		{"a host that has just come", takenWithin, nil, false},
		{"one that has just come back", 0, func(b *binding, _ *announce.Record) { b.stayed = "b" }, true},
		{"one that is about to move", time.Hour, func(b *binding, _ *announce.Record) { b.job = "j" }, false},
		{"one that a job has moved", time.Hour, func(_ *binding, r *announce.Record) { r.Cause, r.Job = announce.Moved, "j" }, false},
		{"one of another site", time.Hour, func(b *binding, _ *announce.Record) { b.rec.Site = "c" }, false},
		{"an old claim", time.Hour, func(b *binding, _ *announce.Record) { b.rec.Seq = 2 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab, r := newTable("b"), claim
			tab.see(start, vm, false)
			if tt.alter != nil {
				tt.alter(tab.byMAC[vm], &r)
			}
			found := start.Add(tt.came)
			again, ok := tab.keep(found.Add(time.Minute), found, r)
			if ok != tt.want || ok && (again.Site != "b" || compare(again, r) <= 0 || show(tab) != "b 2 learned") {
				t.Errorf("%v, %+v, table has %s", ok, again, show(tab))
			}
		})
	}
}

// TestKeepEnds has two sites be sure of one host: one of them gives in, soon, and both
// agree then.
func TestKeepEnds(t *testing.T) {
	now := time.Unix(1000, 0)
	tabs := [2]*table{newTable("a"), newTable("b")}
	for _, tab := range tabs {
		tab.see(now, vm, false)
	}
	found := now.Add(time.Hour)
	r := tabs[0].byMAC[vm].rec
	for i := 1; ; i++ {
		now = found.Add(time.Duration(i) * time.Millisecond)
		to := tabs[i%2]
		again, kept := to.keep(now, found, r)
		if !kept {
			to.accept(now, r.Site, r)
			break
		}
		if r = again; i > 2*maxKept {
			t.Fatalf("it goes on: %+v", r)
		}
	}
	if a, b := show(tabs[0]), show(tabs[1]); a != b {
		t.Errorf("a has %s, b has %s", a, b)
	}
	checkSum(t, tabs[0])
	checkSum(t, tabs[1])
}

// TestSawBefore: a cable was there before only if probes of its own segment had the time to
// show that it was not, however long those of others have been believed.
func TestSawBefore(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name         string
		began, keyed time.Duration // the segment here, and the site's first key; negative: never
		want         bool
	}{
		{"both are old", 0, 0, true},
		{"the segment is new here", time.Minute - takenWithin, 0, false},
		{"the site has just got it", 0, time.Minute - takenWithin, false},
		{"both are just old enough", time.Minute - takenWithin - 1, time.Minute - takenWithin - 1, true},
		{"it is not here yet", -1, 0, false},
		{"the site has sent no key", 0, -1, false},
	} {
		l := newLoop()
		if tt.began >= 0 {
			l.attached, l.began = true, start.Add(tt.began)
		}
		if tt.keyed >= 0 {
			l.noteKey(start.Add(tt.keyed), "b")
			l.noteKey(start.Add(tt.keyed+time.Hour), "b") // only the first counts
		}
		if got := l.sawBefore(start.Add(time.Minute), "b"); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
