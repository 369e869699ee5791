package l2ext_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// nonces watches all that sites send each other, and finds two datagrams that
// were sealed with one nonce: of one secret, direction, epoch and counter.
type nonces struct {
	t *testing.T

	mu     sync.Mutex // guards what follows
	epochs map[uint32]epoch
	seen   map[nonce]bool
	broken error // why sites have no secret; nil: they have
	others byte  // how often the link has had another secret
	keep   func(datagrams [][]byte) [][]byte
}

// epoch is a key, as it was offered by the site that opens.
type epoch struct {
	to     string
	root   uint64
	number uint64
}

type nonce struct {
	epoch
	from    string
	counter uint64
}

func newNonces(t *testing.T) *nonces {
	return &nonces{t: t, epochs: make(map[uint32]epoch), seen: make(map[nonce]bool)}
}

// watch has a site's messages and datagrams pass by.
func (n *nonces) watch(cfg *l2ext.Config) {
	cfg.Carrier = watchedCarrier{cfg.Carrier, n, cfg.Site}
	cfg.Express = watchedExpress{cfg.Express, n, cfg.Site}
}

// lose has the link have no secret, and say why; nil ends that.
func (n *nonces) lose(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = err
}

// another gives the link another secret, such as another connection has, in no time.
func (n *nonces) another() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.others++
}

// cut has only some of the datagrams arrive that are sent at once, if they are more than
// one; nil ends that.
func (n *nonces) cut(keep func(datagrams [][]byte) [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keep = keep
}

type watchedCarrier struct {
	l2ext.Carrier
	n    *nonces
	site string
}

func (c watchedCarrier) SendUrgent(ctx context.Context, site string, b []byte) error {
	if msg, err := announce.Parse(b); err == nil && msg.Kind == announce.Express {
		c.n.mu.Lock()
		c.n.epochs[msg.Index] = epoch{to: c.site, root: msg.Root, number: msg.Epoch}
		c.n.mu.Unlock()
	}
	return c.Carrier.SendUrgent(ctx, site, b)
}

type watchedExpress struct {
	l2ext.Express
	n    *nonces
	site string
}

func (x watchedExpress) Secret(site string) (l2ext.Secret, error) {
	x.n.mu.Lock()
	broken, others := x.n.broken, x.n.others
	x.n.mu.Unlock()
	if broken != nil {
		return l2ext.Secret{}, broken
	}
	s, err := x.Express.Secret(site)
	s[0] += others
	return s, err
}

func (x watchedExpress) Send(site string, b []byte, size int) error {
	x.n.mu.Lock()
	for d := range slices.Chunk(b, size) {
		index, err := fast.Index(d)
		e, known := x.n.epochs[index]
		switch u := (nonce{e, x.site, binary.BigEndian.Uint64(d[8:])}); {
		case err != nil || !known || e.to != site:
			x.n.t.Errorf("%s seals for %s what nobody there can open: index %x, %v", x.site, site, index, err)
		case x.n.seen[u]:
			x.n.t.Errorf("nonce used twice: %+v", u)
		default:
			x.n.seen[u] = true
		}
	}
	keep := x.n.keep
	x.n.mu.Unlock()
	if keep != nil && len(b) > size {
		b = slices.Concat(keep(slices.Collect(slices.Chunk(b, size)))...)
	}
	return x.Express.Send(site, b, size)
}

// talk has hosts of two sites say something to each other, and tells whether both
// were heard.
func (w *world) talk(one, other string) bool {
	w.t.Helper()
	heard := 0
	for _, way := range [][2]string{{one, other}, {other, one}} {
		for w.hosts[way[1]].Receive("lan") != nil {
		}
		check(w.t, w.hosts[way[0]].Send("lan", frameTo(hostOf(way[1]), hostOf(way[0]), 1000)))
		w.pass(100 * time.Millisecond)
		for f := w.hosts[way[1]].Receive("lan"); f != nil; f = w.hosts[way[1]].Receive("lan") {
			if len(f) == 1000 && l2ext.MAC(f[6:12]) == hostOf(way[0]) {
				heard++
			}
		}
	}
	return heard == 2
}

// twoExpress are two sites in mode secure-fast whose hosts know each other.
func twoExpress(t *testing.T, n *nonces) *world {
	w := newWorldWith(t, n.watch, l2exttest.Line{Delay: 10 * time.Millisecond}, "a", "b")
	w.appearAll()
	w.pass(2 * time.Second)
	w.mustTalk("at first")
	return w
}

// mustTalk fails when they do not.
func (w *world) mustTalk(when string) {
	w.t.Helper()
	if !w.talk("a", "b") {
		w.t.Errorf("%s: they do not hear each other; a: %q, b: %q", when, w.ms["a"].Segments()[0].Problem, w.ms["b"].Segments()[0].Problem)
	}
}

// inTwoExpress runs a test with twoExpress in a bubble.
func inTwoExpress(t *testing.T, run func(w *world, n *nonces)) {
	t.Helper()
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		n := newNonces(t)
		run(twoExpress(t, n), n)
	})
}

func (w *world) appearAll() {
	w.appear("a", "lan", hostOf("a"), "10.0.0.1")
	w.appear("b", "lan", hostOf("b"), "10.0.0.2")
}

// TestExpressComesBack removes the segment and makes it anew, at one site and at
// both, again and again under one secret: no nonce is used twice, and in seconds
// both hear each other.
func TestExpressComesBack(t *testing.T) {
	for name, at := range map[string][]string{"one": {"a"}, "the other": {"b"}, "both": {"a", "b"}} {
		t.Run(name, func(t *testing.T) {
			inTwoExpress(t, func(w *world, _ *nonces) {
				t := w.t
				for round := range 4 {
					for _, site := range at {
						check(t, w.ms[site].Apply(t.Context(), nil))
					}
					w.pass(time.Duration(round) * time.Second)
					for _, site := range at {
						check(t, w.ms[site].Apply(t.Context(), []l2ext.Segment{segment(site, []string{"a", "b"})}))
					}
					w.appearAll()
					w.pass(2 * time.Second)
					w.mustTalk(fmt.Sprint("round ", round))
				}
			})
		})
	}
}

// TestExpressSecretAway has the link say for a moment that it has no secret, and
// then the same again.
func TestExpressSecretAway(t *testing.T) {
	inTwoExpress(t, func(w *world, n *nonces) {
		for round := range 4 {
			n.lose(errors.New("for a moment"))
			w.pass(1500 * time.Millisecond)
			n.lose(nil)
			w.pass(2500 * time.Millisecond)
			w.mustTalk(fmt.Sprint("round ", round))
		}
	})
}

// TestExpressOldOffers has a peer offer epochs again that it has offered before, and
// others with the number of one: what was sealed for is not sealed for anew.
func TestExpressOldOffers(t *testing.T) {
	inTwoExpress(t, func(w *world, n *nonces) {
		secret, err := w.wire.Express("b").Secret("a")
		check(t, err)
		root, err := secret.Name()
		check(t, err)
		for i, number := range []uint64{1, 1, 0, 7, 7, 6, 7, 1 << 63, 1<<64 - 1, 1<<64 - 1, 0, 8} {
			index := uint32(i + 1)
			b, err := announce.Message{Kind: announce.Express, VNI: 100, Root: root, Epoch: number, Index: index}.Append(nil)
			n.mu.Lock()
			n.epochs[index] = epoch{to: "b", root: root, number: number}
			n.mu.Unlock()
			check(t, err, w.ms["a"].HandleUrgent("b", b))
			w.pass(1100 * time.Millisecond) // a hello is sealed
		}
		w.wire.Cut()
		w.wire.Heal() // which is another secret: what it said about the old one does not count
		w.pass(3 * time.Second)
		w.mustTalk("with another secret")
	})
}

// TestExpressAnotherSecret changes the connection of the link under the sites, with
// nothing between that they would notice: a gateway that was started anew numbers
// its connections from 1 again.
func TestExpressAnotherSecret(t *testing.T) {
	inTwoExpress(t, func(w *world, n *nonces) {
		for round := range 4 {
			n.another()
			w.pass(2500 * time.Millisecond)
			w.mustTalk(fmt.Sprint("round ", round))
		}
	})
}

// TestExpressUnheard has no datagram arrive: sites tell each other how to seal now and
// then, and do not answer each other for ever.
func TestExpressUnheard(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{Delay: time.Millisecond, Loss: 1}, "a", "b", "c")
		_, before := w.wire.Sent()
		w.pass(time.Minute)
		if _, after := w.wire.Sent(); after-before > 6*40 { // 10 of the first 10 s, 5 later; 6 digests, 6 ways, a key; some bindings
			t.Errorf("%d messages in a minute", after-before)
		}
		w.wire.SetLoss(0)
		w.appearAll()
		w.pass(2 * time.Second) // the keys are known
		w.mustTalk("when nothing is lost any more")
	})
}

// TestExpressOneSegmentOfMany: the others in the mode are carried in another one by the peer, or
// are not known to it. The last is carried.
func TestExpressOneSegmentOfMany(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, newNonces(t).watch, l2exttest.Line{Delay: 10 * time.Millisecond}, "a", "b")
		for site, m := range w.ms {
			own := segment(site, []string{"a", "b"}) // of VNI 100
			wished := []l2ext.Segment{own}
			for vni := range uint32(40) {
				s := own
				s.VNI, s.Name, s.Bridge = vni+1, fmt.Sprintf("s%d", vni+1), fmt.Sprintf("br%d", vni+1)
				switch {
				case site == "a":
					wished = append(wished, s)
				case vni < 5:
					s.Mode = l2ext.Secure
					wished = append(wished, s)
				}
			}
			check(t, m.Apply(t.Context(), nil), m.Apply(t.Context(), wished))
		}
		w.appearAll()
		w.pass(5 * time.Second)
		w.mustTalk("at first")
		w.pass(5 * time.Minute) // of which all keys are new
		w.appearAll()
		w.mustTalk("after some minutes")
		for _, v := range w.ms["a"].Segments() {
			if l := v.Lanes["b"]; l.Works != (v.VNI == 100 || v.VNI > 5) {
				t.Errorf("segment %s: %+v", v.Name, l)
			}
		}
	})
}

// TestExpressPiecesOfTwo loses a part of a message, and, after the sender's segment was made anew,
// another part of another one of the same length: the two are not made into one.
func TestExpressPiecesOfTwo(t *testing.T) {
	inTwoExpress(t, func(w *world, n *nonces) {
		t := w.t
		say := func(fill byte, keep func([][]byte) [][]byte) {
			n.cut(keep)
			f := frameTo(hostOf("b"), hostOf("a"), 1514)
			for i := range f[14:] {
				f[14+i] = fill
			}
			check(t, w.hosts["a"].Send("lan", f))
			w.pass(100 * time.Millisecond)
			n.cut(nil)
		}
		say(1, func(d [][]byte) [][]byte { return d[:1] })
		check(t, w.ms["a"].Apply(t.Context(), nil))
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{segment("a", []string{"a", "b"})}))
		w.appearAll()
		w.pass(2 * time.Second)
		say(2, func(d [][]byte) [][]byte { return d[1:] })
		for f := w.hosts["b"].Receive("lan"); f != nil; f = w.hosts["b"].Receive("lan") {
			if len(f) == 1514 {
				t.Errorf("a frame arrived that begins with %d and ends with %d", f[14], f[1513])
			}
		}
		say(3, nil)
		if got := w.receive("b", "lan", hostOf("a")); len(got) != 1 || len(got[0]) != 1514 {
			t.Errorf("%d frames arrived", len(got))
		}
	})
}
