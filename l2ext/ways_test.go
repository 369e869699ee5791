package l2ext

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/probe"
)

var wayLocal, wayFar = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")

func testWays(mode Mode) (*ways, time.Time) {
	now := time.Unix(1000, 0)
	return newWays(now, Segment{Mode: mode, MTU: 1500, Sites: []string{"b"}}, wayLocal), now
}

// TestWayComesUp asks over an underlay: it is up from the first full frame that
// comes back until for a while none does.
func TestWayComesUp(t *testing.T) {
	w, now := testWays(Direct)
	numbers := uint64(0)
	ask := func() []question {
		return w.due(now, func() uint64 { numbers++; return numbers })
	}
	if q := ask(); len(q) != 0 {
		t.Errorf("a site that has said nothing is asked: %v", q)
	}
	if p := w.problem(now.Add(wayPause)); !strings.Contains(p, "has not said") {
		t.Errorf("a silent site: %q", p)
	}
	if fresh, agree := w.told(now, "b", Direct, wayFar); !fresh || !agree {
		t.Errorf("told: %t, %t", fresh, agree)
	}
	if fresh, _ := w.told(now, "b", Direct, wayFar); fresh {
		t.Error("the same is new")
	}
	q := ask()
	if len(q) != 2 || q[0].full || !q[1].full || len(ask()) != 0 {
		t.Fatalf("asked: %v", q)
	}
	if w.answered(now, probe.Echo{Number: 99}) || !w.answered(now, probe.Echo{Number: q[0].number}) || w.up(now, "b") {
		t.Error("a small frame, or a guess, makes a way work")
	}
	if p := w.problem(now.Add(wayHold - 1)); p != "" {
		t.Errorf("too early: %q", p)
	}
	now = now.Add(wayHold)
	w.bySite["b"].small = now
	if p := w.problem(now); !strings.Contains(p, "small frames come back, those of 1500 bytes do not") {
		t.Errorf("only small frames: %q", p)
	}
	q = ask()
	w.answered(now, probe.Echo{Number: q[1].number, Size: 1513})
	if w.up(now, "b") {
		t.Error("a frame that came back shorter counts")
	}
	now = now.Add(askFast)
	q = ask()
	w.answered(now.Add(time.Millisecond), probe.Echo{Number: q[1].number, Size: 1514})
	if v := w.view(now); !v[0].Up || v[0].RTT != time.Millisecond || v[0].Addr != wayFar || w.problem(now) != "" {
		t.Errorf("after a full frame: %+v", v)
	}
	if turned := w.turned(now); len(turned) != 1 || turned["b"] != "" || len(w.turned(now)) != 0 {
		t.Errorf("turned: %v", turned)
	}
	now = now.Add(askFast)
	if q = ask(); len(q) != 0 {
		t.Error("a way that works is asked too often")
	}
	now = now.Add(wayHold)
	if turned := w.turned(now); !strings.Contains(turned["b"], "no frame comes back") {
		t.Errorf("turned: %v", turned)
	}
	for range 1000 { // what is never answered is forgotten
		now = now.Add(askFast)
		ask()
	}
	if n := len(w.bySite["b"].asked); n > maxQuestions {
		t.Errorf("%d questions wait", n)
	}
}

// TestWayRefusals: a site in another mode, or with an address that is none.
func TestWayRefusals(t *testing.T) {
	for _, tt := range []struct {
		own, mode Mode
		addr      string
		refused   bool
		problem   string
	}{
		{Direct, Secure, "", true, "site b carries the segment in mode secure and this site in mode direct"},
		{Secure, Direct, "10.1.0.2", true, "site b carries the segment in mode direct and this site in mode secure"},
		{Secure, "by-pigeon", "", true, "in mode by-pigeon"},
		{Secure, Secure, "", false, ""},
		{Direct, Direct, "", false, "has no underlay address"},
		{Direct, Direct, "fd00::2", false, "not of one version"},
		{Direct, Direct, "127.0.0.1", false, "cannot be reached"},
		{Direct, Direct, "10.1.0.1", false, "cannot be reached"},
	} {
		w, now := testWays(tt.own)
		addr, _ := netip.ParseAddr(tt.addr)
		w.told(now, "b", tt.mode, addr)
		w.told(now, "x", tt.mode, addr) // not on the segment
		if got := w.problem(now); tt.problem == "" && got != "" || !strings.Contains(got, tt.problem) {
			t.Errorf("%+v: problem %q", tt, got)
		}
		if got := w.refuses("b"); got != tt.refused || w.refuses("x") {
			t.Errorf("%+v: refused %t", tt, got)
		}
		if n := len(w.agreed()); n != 0 && tt.problem != "" {
			t.Errorf("%+v: %d sites get frames", tt, n)
		}
	}
}

// TestWaysInherit: what sites have said outlives a change of the segment's sites.
func TestWaysInherit(t *testing.T) {
	old, now := testWays(Direct)
	old.told(now, "b", Direct, wayFar)
	next := newWays(now, Segment{Mode: Secure, MTU: 1500, Sites: []string{"b", "c"}}, wayLocal)
	next.inherit(old)
	if !next.refuses("b") || next.refuses("c") || len(next.agreed()) != 0 {
		t.Errorf("inherited: %+v", next.view(now))
	}
}
