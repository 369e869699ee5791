package l2ext

import (
	"net/netip"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// TestTelling takes what a site tells in orders that happen: a snapshot that was held back comes after
// the digest, hosts are told twice or withdrawn, and of some we know the same already.
func TestTelling(t *testing.T) {
	record := func(last byte, cause announce.Cause) announce.Record {
		return announce.Record{MAC: announce.MAC{2, 0, 0, 0, 0, last}, Site: "b", Cause: cause}
	}
	w := newWays(time.Now(), Segment{Mode: Direct, Sites: []string{"b"}}, netip.MustParseAddr("10.0.0.1"))
	waits := func() bool {
		sites, _ := w.adopts(time.Now(), func(string) (time.Time, bool) { return time.Now(), true })
		return len(sites) > 0
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"nothing was told", func() {}},
		{"how it carries the segment", func() { w.told(time.Now(), "b", Direct, netip.MustParseAddr("10.0.0.2")) }},
		{"a host, before its digest", func() { w.heardHosts("b", []announce.Record{record(5, announce.Learned)}) }},
		{"that it has gone", func() { w.heardHosts("b", []announce.Record{record(5, announce.Withdrawn)}) }},
		{"a digest", func() { w.heardDigest(time.Now(), "b", 2, false) }},
		{"a host", func() { w.heardHosts("b", []announce.Record{record(1, announce.Learned)}) }},
		{"the same again, and one that has gone", func() {
			w.heardHosts("b", []announce.Record{record(1, announce.Learned), record(2, announce.Withdrawn)})
		}},
		{"of somebody else", func() { w.heardHosts("c", []announce.Record{record(3, announce.Learned)}) }},
	} {
		if step.do(); !waits() {
			t.Fatalf("it has told all with: %s", step.what)
		}
	}
	w.heardHosts("b", []announce.Record{record(4, announce.Learned)})
	if waits() {
		t.Error("it has told all, and is waited for")
	}
	w = newWays(time.Now(), Segment{Mode: Direct, Sites: []string{"b"}}, netip.MustParseAddr("10.0.0.1"))
	w.told(time.Now(), "b", Direct, netip.Addr{})
	if w.heardDigest(time.Now(), "b", 2, true); waits() {
		t.Error("it knows what we know, and is waited for")
	}
}

// TestTellingInVain has a site that never tells all. While it says nothing it is waited for as long as for
// one that has no such segment, while it says something much longer, but not for ever; and by none of what
// it says it can begin anew.
func TestTellingInVain(t *testing.T) {
	began := time.Unix(1000, 0)
	for _, tt := range []struct {
		what string
		says func(now time.Time, w *ways)
		ends time.Duration
	}{
		{"nothing", func(time.Time, *ways) {}, absentAfter},
		{"a digest", func(now time.Time, w *ways) { w.heardOf(now, "b"); w.heardDigest(now, "b", 2, false) }, tellingTime},
		{"another address each time", func(now time.Time, w *ways) {
			w.told(now, "b", Direct, netip.AddrFrom4([4]byte{10, 0, byte(now.Unix() >> 8), byte(now.Unix())}))
		}, tellingTime},
	} {
		w := newWays(began, Segment{Mode: Direct, Sites: []string{"b"}}, netip.MustParseAddr("10.0.0.1"))
		for after := time.Duration(0); ; after += time.Second {
			now := began.Add(after)
			if sites, _ := w.adopts(now, func(string) (time.Time, bool) { return began, true }); len(sites) == 0 {
				if after != tt.ends {
					t.Errorf("%s: it is waited for %v, want %v", tt.what, after, tt.ends)
				}
				break
			}
			if tt.says(now, w); after > 2*tellingTime {
				t.Errorf("%s: it is waited for without end", tt.what)
				break
			}
		}
	}
}

// TestTellingOnlyDirect: in other modes nobody asks for what a site has told since the start, and nobody keeps it;
// nor when a segment goes to one of them.
func TestTellingOnlyDirect(t *testing.T) {
	now := time.Unix(1000, 0)
	made := func(mode Mode) *ways {
		return newWays(now, Segment{Mode: mode, Sites: []string{"b"}}, netip.MustParseAddr("10.0.0.1"))
	}
	was, secure, direct := made(Direct), made(Secure), made(Direct)
	direct.inherit(was)
	secure.inherit(was)
	for mode, tt := range map[string]struct {
		w    *ways
		want bool
	}{
		"direct": {made(Direct), true}, "secure": {made(Secure), false}, "secure-fast": {made(SecureFast), false},
		"direct, as before": {direct, true}, "secure, before it was direct": {secure, false},
	} {
		tt.w.heardHosts("b", []announce.Record{{MAC: announce.MAC{2}, Site: "b", Cause: announce.Learned}})
		if got := tt.w.bySite["b"].telling != nil; got != tt.want {
			t.Errorf("%s: what a site tells is kept: %t", mode, got)
		}
	}
}
