package l2ext_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestParkingOverModes changes a segment's mode while a VM is paused, whose job is then
// forgotten: frames for it still wait, and not for ever. What waited in another form is
// lost, and counted.
func TestParkingOverModes(t *testing.T) {
	for _, tt := range []struct {
		from, to l2ext.Mode
		want     []int
	}{
		{l2ext.Secure, l2ext.SecureFast, []int{2}},
		{l2ext.SecureFast, l2ext.Secure, []int{2}},
		{l2ext.SecureFast, l2ext.Direct, []int{2}},
		{l2ext.Secure, l2ext.Direct, []int{1, 2}},
	} {
		t.Run(string(tt.from+" to "+tt.to), func(t *testing.T) {
			inMode(t, tt.from)
			synctest.Test(t, func(t *testing.T) {
				w := switching(t, l2exttest.Line{}, "a", "b")
				check(t, w.ms["a"].Flip(t.Context(), "j"))
				w.settle()
				w.say("b", 1)
				for site, m := range w.ms {
					s := segment(site, []string{"a", "b"})
					s.Mode = tt.to
					check(t, m.Apply(t.Context(), []l2ext.Segment{s}))
				}
				w.settle()
				w.say("b", 2)
				if got := w.told("b", "vm"); got != nil {
					t.Errorf("the paused VM got %v", got)
				}
				w.pass(12 * time.Second)
				if got := w.told("b", "vm"); !slices.Equal(got, tt.want) {
					t.Errorf("in the end it got %v, want %v", got, tt.want)
				}
				if n := w.count("b", l2ext.DropParked); n != 2-len(tt.want) {
					t.Errorf("%d frames were lost", n)
				}
				if s := w.hosts["b"].String(); strings.Contains(s, vmMAC.String()+" site") {
					t.Errorf("host b is\n%s", s)
				}
			})
		})
	}
}

// TestParkingWithUnknown has a policy that lets unknown unicast cross: in mode secure-fast
// all unicast that comes from the bridge may then be a copy, but not that for a paused
// VM.
func TestParkingWithUnknown(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b")
		for site, m := range w.ms {
			s := segment(site, []string{"a", "b"})
			s.Policy.Unknown = l2ext.UnknownLimited
			check(t, m.Apply(t.Context(), []l2ext.Segment{s}))
		}
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		w.say("b", 1)
		w.say("a", 2)
		w.say("b", 3)
		check(t, w.ms["b"].Settle(t.Context(), "j", nics))
		w.settle()
		got := w.told("b", "vm")
		slices.Sort(got)
		if !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("the VM got %v", got)
		}
	})
}
