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
		{"a digest", func() { w.heardDigest("b", 2, false) }},
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
	if w.heardDigest("b", 2, true); waits() {
		t.Error("it knows what we know, and is waited for")
	}
}
