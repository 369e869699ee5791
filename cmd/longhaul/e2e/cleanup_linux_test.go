package e2e

import (
	"os"
	"testing"

	"github.com/longhaul-project/longhaul/bench/lab"
)

// TestCleanup kills a gateway that has segments, and has `longhauld --cleanup`
// take away what it has left. What others have made stays as it is.
func TestCleanup(t *testing.T) {
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 10e6}, noGuest: true, noPair: true})
	// Somebody else's: a VXLAN on the same bridge, a second bridge, entries. It is down
	// at one end, as it would join the LANs of the two sites, which is found in no time
	// and a problem that a pair does not come up with.
	if err := b.lab.Stretch(); err != nil {
		t.Fatal(err)
	}
	run(t, b.lab.B, "ip", "link", "set", "vxlan77", "down")
	for _, s := range b.sites() {
		if err := s.Net().Bridge("br-foreign"); err != nil {
			t.Fatal(err)
		}
		run(t, s, "bridge", "fdb", "add", "52:54:00:00:00:99", "dev", "vxlan77", "dst", "198.51.100.9", "self", "permanent")
	}
	before := b.dump(t)
	b.startPair(t, bedOptions{extra: func(*lab.Site) string { return "" }})
	with := b.dump(t)
	for i, s := range b.sites() {
		if with[i] == before[i] {
			t.Errorf("the gateway of site %s has changed nothing: this test tests nothing", s.Name)
		}
		b.pair.Process(s).Kill()
	}
	for range 2 { // twice is as good as once
		for _, s := range b.sites() {
			run(t, s, os.Getenv(binaryMark), "--cleanup")
		}
	}
	for i, after := range b.dump(t) {
		if after != before[i] {
			t.Errorf("site %s before:\n%s\nafter:\n%s", b.sites()[i].Name, before[i], after)
		}
	}
	for _, s := range b.sites() { // and it can be used again
		if err := b.pair.Run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.pair.WaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// dump describes the networks of both sites.
func (b *bed) dump(t *testing.T) (all []string) {
	t.Helper()
	for _, s := range b.sites() {
		text, err := s.Net().Dump()
		if err != nil {
			t.Fatal(err)
		}
		rules, err := s.Command(t.Context(), "sh", "-c", "nft list ruleset 2>/dev/null || true").Output()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text+string(rules))
	}
	return all
}

// run runs a command inside a site.
func run(t *testing.T, s *lab.Site, argv ...string) {
	t.Helper()
	if out, err := s.Command(t.Context(), argv...).CombinedOutput(); err != nil {
		t.Fatalf("%v at site %s: %v: %s", argv, s.Name, err, out)
	}
}
