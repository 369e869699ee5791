package l2ext_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// adopter is a Host that notes what was last wished to stay of an earlier gateway's, and which hosts
// were taken out by name.
type adopter struct {
	l2ext.Host
	mu   sync.Mutex
	last l2ext.Adopted
	out  map[l2ext.MAC]bool
}

func (a *adopter) Apply(ctx context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	a.mu.Lock()
	for _, w := range wishes {
		if a.last = (l2ext.Adopted{}); w.Direct != nil {
			a.last = w.Direct.Adopted
		}
	}
	a.mu.Unlock()
	return a.Host.Apply(ctx, wishes)
}

func (a *adopter) Point(vni uint32, entries []l2ext.Entry) error {
	a.mu.Lock()
	for _, e := range entries {
		a.out[e.MAC] = e.Site == 0
	}
	a.mu.Unlock()
	return a.Host.Point(vni, entries)
}

// String tells of how many sites what is there stays, and of what else.
func (a *adopter) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("%d sites, strangers %t, neighbours %t", len(a.last.Sites), a.last.Strangers, a.last.Neighbours)
}

// adopting is a world in which site a has just started, in mode direct, with links that are down.
func adopting(t *testing.T, change func(*l2ext.Segment), sites ...string) (*world, *adopter) {
	w := emptyWorld(t, l2exttest.Line{Delay: 20 * time.Millisecond})
	a := &adopter{out: make(map[l2ext.MAC]bool)}
	w.change = func(c *l2ext.Config) {
		if c.Site == "a" {
			a.Host = c.Host
			c.Host = a
		}
	}
	w.begin(sites)
	w.wire.Cut()
	w.settle()
	for _, site := range sites {
		s := segment(site, sites)
		s.Mode = l2ext.Direct
		if site == "a" && change != nil {
			change(&s)
		}
		check(t, w.ms[site].Apply(t.Context(), nil), w.ms[site].Apply(t.Context(), []l2ext.Segment{s}))
	}
	return w, a
}

// wantAdopted waits until what stays is as wanted, and tells how long that took.
func (w *world) wantAdopted(a *adopter, want string, bound time.Duration) (took time.Duration) {
	w.t.Helper()
	for began := time.Now(); ; {
		took = time.Since(began)
		if a.String() == want {
			return took
		}
		if took > bound {
			w.t.Fatalf("after %v there stays what is of %s, want %s", took, a, want)
		}
		w.pass(10 * time.Millisecond)
	}
}

// TestDirectAdoption starts a gateway in mode direct. What an earlier one has left stays for each site
// until that has told all, however long that takes; and never of a host that is here.
func TestDirectAdoption(t *testing.T) {
	for _, silence := range []time.Duration{500 * time.Millisecond, 5 * time.Second, time.Hour} {
		t.Run(silence.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, a := adopting(t, nil, "a", "b", "c")
				began := time.Now()
				w.appear("a", "lan", vmMAC, "10.0.0.9")
				a.mu.Lock()
				if out, ok := a.out[vmMAC]; !ok || !out {
					t.Error("a host that is here has its entries of before")
				}
				a.mu.Unlock()
				w.pass(silence - time.Since(began))
				w.wantAdopted(a, fmt.Sprintf("2 sites, strangers false, neighbours %t", silence < 10*time.Second), 0)
				for i := range 600 { // more than are told with one message
					check(t, w.hosts["b"].Send("lan", ether.AppendAnnounce(nil, l2ext.MAC{2, 0, 0, 7, byte(i >> 8), byte(i)}, netip.Addr{})))
				}
				w.wire.Heal()
				w.wire.Isolate("c")
				if took := w.wantAdopted(a, fmt.Sprintf("1 sites, strangers false, neighbours %t", silence < 10*time.Second), 3*time.Second); took < 40*time.Millisecond {
					t.Errorf("b cannot have told in %v", took)
				}
				if n := len(w.ms["a"].Segments()[0].Bindings); n < 600 {
					t.Errorf("b has told of %d hosts", n)
				}
				w.pass(10 * time.Minute)
				w.wantAdopted(a, "1 sites, strangers false, neighbours false", 0)
				w.wire.Rejoin("c")
				w.wantAdopted(a, "0 sites, strangers false, neighbours false", 3*time.Second)
				w.wire.Cut()
				w.pass(time.Minute)
				w.wantAdopted(a, "0 sites, strangers false, neighbours false", 0)
			})
		})
	}
}

// TestDirectAdoptionTogether restarts the gateways of a and b together: b has told all that it knows, which is
// not all of its hosts. Entries of these stay for some minutes, where b is now.
func TestDirectAdoptionTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := adopting(t, nil, "a", "b")
		settling := func(when, want string) {
			t.Helper()
			a.mu.Lock()
			defer a.mu.Unlock()
			var got []string
			for _, s := range a.last.Settling {
				got = append(got, s.Addr.String())
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s entries stay for %v, want %s", when, got, want)
			}
		}
		settling("before b has told", "")
		w.wire.Heal()
		w.wantAdopted(a, "0 sites, strangers false, neighbours false", 3*time.Second)
		settling("when b has told", "10.9.0.98")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		a.mu.Lock()
		if !a.out[vmMAC] {
			t.Error("a host that is here has its entries of before")
		}
		a.mu.Unlock()
		w.pass(4*time.Minute + 50*time.Second)
		settling("after nearly five minutes", "10.9.0.98")
		w.pass(15 * time.Second)
		settling("after five minutes", "")
		w.wire.Cut()
		w.wire.Heal()
		w.pass(15 * time.Second)
		settling("when b is back", "")
	})
}

// TestDirectAdoptionMidMove: the gateway of a has died when it had flipped a VM, and the next one takes the move back,
// while the link is down. The kernel still has the entry of the flip, which would keep the VM from its own LAN.
func TestDirectAdoptionMidMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := adopting(t, nil, "a", "b")
		ctx, m := t.Context(), w.ms["a"]
		check(t, m.Prepare(ctx, "j", nics, "b"))
		a.mu.Lock()
		_, touched := a.out[vmMAC]
		a.mu.Unlock()
		if touched {
			t.Error("the entry was touched before it is known where the VM is")
		}
		check(t, m.Revoke(ctx, "j"))
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.out[vmMAC] {
			t.Error("the entry of the flip stays")
		}
	})
}

// TestDirectAdoptionBeforeMove has a move be prepared when the gateway of a has just started. The kernel has an entry of before for the VM,
// which goes when the VM is seen here.
func TestDirectAdoptionBeforeMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := adopting(t, nil, "a", "b")
		check(t, w.ms["a"].Prepare(t.Context(), "j", nics, "b"))
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.out[vmMAC] {
			t.Error("a host that is here has its entry of before")
		}
	})
}

// TestDirectAdoptionAbsent has a site whose link is up and that has no such segment any more: what is
// there for it goes when a segment counts as absent.
func TestDirectAdoptionAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := adopting(t, nil, "a", "b")
		check(t, w.ms["b"].Apply(t.Context(), nil))
		w.wire.Heal()
		w.pass(30 * time.Second)
		w.wantAdopted(a, "1 sites, strangers false, neighbours false", 0)
		w.wantAdopted(a, "0 sites, strangers false, neighbours false", 10*time.Second)
		if len(a.last.Settling) > 0 {
			t.Error("entries stay for a site that has no such segment")
		}
	})
}

// TestDirectAdoptionMode has a site that carries the segment in another mode now.
func TestDirectAdoptionMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := adopting(t, nil, "a", "b")
		check(t, w.ms["b"].Apply(t.Context(), []l2ext.Segment{segment("b", []string{"a", "b"})}))
		w.wire.Heal()
		w.wantAdopted(a, "0 sites, strangers false, neighbours false", 3*time.Second)
	})
}

// TestDirectAdoptionStrangers has a segment that is everywhere, of which the gateway knows no site yet:
// what is there stays for some seconds, and for a site that is met meanwhile until that has told all.
func TestDirectAdoptionStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s l2ext.Segment
		w, a := adopting(t, func(o *l2ext.Segment) { o.Sites, o.Everywhere = nil, true; s = *o }, "a", "b")
		w.pass(11 * time.Second)
		w.wantAdopted(a, "0 sites, strangers true, neighbours false", 0)
		s.Sites = []string{"b"}
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{s}))
		w.wantAdopted(a, "1 sites, strangers true, neighbours false", 0)
		w.pass(10 * time.Second)
		w.wantAdopted(a, "1 sites, strangers false, neighbours false", 0)
		w.wire.Heal()
		w.wantAdopted(a, "0 sites, strangers false, neighbours false", 3*time.Second)
	})
}

// TestDirectAdoptionForeign restarts the gateway of a, which does not know of site b. What c says of the hosts
// of b is left out, and all else that it says with it holds: c has told all with it.
func TestDirectAdoptionForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := adopting(t, func(s *l2ext.Segment) { s.Sites = []string{"c"} }, "a", "b", "c")
		w.wire.Isolate("a")
		w.wire.Heal()
		const hosts = 700 // of each: more than are told with one message, and in any order
		for i := range hosts {
			check(t, w.hosts["b"].Send("lan", ether.AppendAnnounce(nil, l2ext.MAC{2, 0, 0, 8, byte(i >> 8), byte(i)}, netip.Addr{})))
			check(t, w.hosts["c"].Send("lan", ether.AppendAnnounce(nil, l2ext.MAC{2, 0, 0, 7, byte(i >> 8), byte(i)}, netip.Addr{})))
		}
		w.pass(11 * time.Second)
		w.wire.Isolate("b")
		w.wire.Rejoin("a")
		w.wantAdopted(a, "0 sites, strangers false, neighbours false", 3*time.Second)
		v := w.ms["a"].Segments()[0]
		of := make(map[string]int)
		for _, b := range v.Bindings {
			of[b.Site]++
		}
		if of["c"] < hosts || of["b"] != 0 || v.Counts[l2ext.Refused] < hosts {
			t.Errorf("a knows %v, and has refused %d", of, v.Counts[l2ext.Refused])
		}
	})
}
