package l2ext_test

import (
	"testing"
	"testing/synctest"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestStrangersAreLetGo: hosts that a segment has found stay known when its sites change,
// and are found anew when they may be of another LAN: the segment has another bridge or
// VLAN, or took the hosts of all VLANs for its own while it had its bridge to itself.
func TestStrangersAreLetGo(t *testing.T) {
	const here, gone = "a: a 2 confirmed; b: a 2 confirmed", "a: nowhere; b: nowhere"
	beside := l2ext.Segment{Name: "tagged", VNI: 300, Bridge: "br", VLAN: 7, Sites: []string{"b"}}
	for name, tt := range map[string]struct {
		first, then func(*l2ext.Segment) *l2ext.Segment // what the segment is, and another one or nil
		want        string
	}{
		"the same": {nil, func(s *l2ext.Segment) *l2ext.Segment { return nil }, here},
		"other sites": {nil, func(s *l2ext.Segment) *l2ext.Segment {
			s.Sites = append(s.Sites, "z")
			return nil
		}, here},
		"another bridge": {nil, func(s *l2ext.Segment) *l2ext.Segment { s.Bridge = "other"; return nil }, gone},
		"a VLAN":         {nil, func(s *l2ext.Segment) *l2ext.Segment { s.VLAN = 9; return nil }, gone},
		"its bridge is shared": {nil, func(s *l2ext.Segment) *l2ext.Segment {
			return &beside
		}, gone},
		"it was shared before": {func(s *l2ext.Segment) *l2ext.Segment { return &beside }, func(s *l2ext.Segment) *l2ext.Segment {
			return &beside
		}, here},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, l2exttest.Line{}, "a", "b")
				w.hosts["a"].AddBridge("other")
				apply := func(change func(*l2ext.Segment) *l2ext.Segment) {
					s := segment("a", []string{"a", "b"})
					all := []l2ext.Segment{s}
					if change != nil {
						if other := change(&s); other != nil {
							all = append(all, *other)
						}
						all[0] = s
					}
					check(t, w.ms["a"].Apply(t.Context(), all))
					w.settle()
				}
				apply(tt.first)
				w.appear("a", "lan", vmMAC, "10.0.0.9")
				w.want(vmMAC, here)
				apply(tt.then)
				w.want(vmMAC, tt.want)
				if tt.want == gone && name == "its bridge is shared" {
					w.appear("a", "lan", vmMAC, "10.0.0.9")
					w.want(vmMAC, "a: a 5 confirmed; b: a 5 confirmed")
				}
			})
		})
	}
}
