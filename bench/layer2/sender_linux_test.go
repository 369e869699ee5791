package layer2

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// TestStorm: what the generator makes comes into a bridge.
func TestStorm(t *testing.T) {
	nstest.NeedRoot(t)
	ns := nstest.New(t)
	if err := nstest.Veth(ns, "storm0", ns, "storm1"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Bridge("br0", "storm0"); err != nil {
		t.Fatal(err)
	}
	before, err := ns.Received("br0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := startStorm(ns, "storm0")
	if err != nil {
		t.Fatal(err)
	}
	const some = 10_000 // more than the kernel says on its own
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		now, err := ns.Received("br0")
		if err != nil {
			t.Fatal(err)
		}
		if now-before >= some {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("the bridge has taken %d frames", now-before)
		}
	}
	if cost, err := s.end(); err != nil || cost <= 0 {
		t.Errorf("a storm that has cost %v, %v", cost, err)
	}
}
