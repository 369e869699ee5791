package gateway_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestSegmentToStrangers: what can never be a site is refused; a site that is not
// known yet is a problem that the list, the doctor and the metrics show.
func TestSegmentToStrangers(t *testing.T) {
	stretched(t, testwan.Line{}, "", func(t *testing.T, _ *testwan.WAN, a, b *stretch) {
		a.host.AddBridge("br2")
		for _, c := range []struct {
			s    gateway.Segment
			want error
			text string
		}{
			{gateway.Segment{Name: "two", VNI: 101, Bridge: "br2", Sites: []string{"B!"}}, gateway.ErrInvalid, `site "B!" of segment two`},
			{gateway.Segment{Name: "two", VNI: 101, Bridge: "br2", Sites: []string{""}}, gateway.ErrInvalid, `site "" of segment two`},
			{gateway.Segment{Name: "two", VNI: 100, Bridge: "br2", Sites: []string{"b"}}, gateway.ErrExists, "VNI 100, of segment prod"},
			{gateway.Segment{Name: "prod", VNI: 101, Bridge: "br2", Sites: []string{"b"}}, gateway.ErrExists, "segment prod"},
		} {
			if _, err := a.l2.AddSegment(t.Context(), c.s); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v: %v, want %v: %s", c.s, err, c.want, c.text)
			}
		}
		s, err := a.l2.AddSegment(t.Context(), gateway.Segment{Name: "two", VNI: 101, Bridge: "br2", Sites: []string{"q", "b", "r"}})
		if err != nil || s.Problem != "no such site yet: q, r" {
			t.Errorf("%+v, %v", s, err)
		}
		if p := a.segment().Problem; p != "" {
			t.Errorf("a segment to a site that is known has a problem: %s", p)
		}
		s, err = a.l2.AddSegment(t.Context(), gateway.Segment{Name: "three", VNI: 102, Bridge: "br3", Sites: []string{"b"}, Policy: gateway.SegmentPolicy{Home: "q"}})
		if err != nil || s.Problem != "its home, site q, is not on the segment" {
			t.Errorf("%+v, %v", s, err)
		}
		if n := len(b.segment().Bindings); n < 2 {
			t.Errorf("b knows %d hosts", n)
		}
		if err := errors.Join(a.l2.RemoveSegment(t.Context(), "prod"), a.l2.RemoveSegment(t.Context(), "three")); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		for _, h := range b.segment().Bindings {
			if h.Site == "a" {
				t.Errorf("a has left, and b still knows %+v", h)
			}
		}
		if err := a.l2.RemoveSegment(t.Context(), "prod"); !errors.Is(err, gateway.ErrNotFound) {
			t.Errorf("removed twice: %v", err)
		}
		for _, c := range a.l2.CheckPaths(t.Context()) {
			if c.Subject == "two to q" && (c.State != gateway.CheckFail || !strings.Contains(c.Detail, "no such site yet")) {
				t.Errorf("%+v", c)
			}
		}
	})
}
