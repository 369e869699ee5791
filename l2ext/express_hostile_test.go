package l2ext_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// alone is a site with a peer, b, that a test plays: it hears all that is said to it.
type alone struct {
	t      *testing.T
	m      *l2ext.Manager
	secret l2ext.Secret

	mu    sync.Mutex // guards what follows
	offer announce.Message
	told  int // messages
	known int // bindings in them
	sent  int // datagrams
}

func (a *alone) SendFrame(string, []byte) error { return nil }
func (a *alone) MaxDatagram(string) int         { return 1243 }
func (a *alone) SendUrgent(_ context.Context, _ string, b []byte) error {
	msg, err := announce.Parse(b)
	check(a.t, err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told++
	a.known += len(msg.Records)
	if msg.Kind == announce.Express {
		a.offer = msg
	}
	return nil
}

func (a *alone) Secret(string) (l2ext.Secret, error) { return a.secret, nil }
func (a *alone) Size(string) int                     { return 1452 }
func (a *alone) Send(_ string, b []byte, size int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent += (len(b) + size - 1) / size
	return nil
}

// counted tells how many messages and datagrams there were since the last call.
func (a *alone) counted() (told, sent int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	told, sent = a.told, a.sent
	a.told, a.sent = 0, 0
	return told, sent
}

// bindings tells how many bindings there were in messages since the last call.
func (a *alone) bindings() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, a.known = a.known, 0
	return n
}

// newAlone runs one in a bubble.
func newAlone(t *testing.T) *alone {
	a := &alone{t: t, secret: l2ext.Secret{7}}
	h := l2exttest.NewHost()
	h.AddBridge("br")
	m, err := l2ext.New(l2ext.Config{Site: "a", Host: h, Carrier: a, Express: a})
	check(t, err)
	a.m = m
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { check(t, m.Run(ctx)) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	check(t, m.Apply(ctx, []l2ext.Segment{segment("a", []string{"a", "b"})}))
	m.PeerUp("b")
	synctest.Wait()
	return a
}

// say has the peer offer a key.
func (a *alone) say(epoch uint64, index uint32) {
	a.t.Helper()
	name, err := a.secret.Name()
	check(a.t, err)
	b, err := announce.Message{Kind: announce.Express, VNI: 100, Root: name, Epoch: epoch, Index: index}.Append(nil)
	check(a.t, err, a.m.HandleUrgent("b", b))
}

// packer seals for the site what the peer likes.
func (a *alone) packer() *fast.Packer {
	a.t.Helper()
	a.mu.Lock()
	offer := a.offer
	a.mu.Unlock()
	sealer, err := fast.NewSealer(a.secret, fast.Way{From: "b", To: "a", Epoch: offer.Epoch}, offer.Index)
	check(a.t, err)
	p := fast.NewPacker(new(atomic.Uint32), func(b []byte, size int) {
		if site := a.m.HandleExpress(b, size); site != "b" {
			a.t.Errorf("a datagram of b is taken for one of %q", site)
		}
	})
	p.Start(sealer, 1452)
	return p
}

// TestHellosAsked: a peer that asks for hellos all the time gets a few. They are long,
// and go where it seems to be.
func TestHellosAsked(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		a := newAlone(t)
		a.say(1, 1)
		synctest.Wait()
		p := a.packer()
		a.counted()
		const seconds = 10
		for range seconds * 1000 {
			p.Hello(0)
			time.Sleep(time.Millisecond)
		}
		if _, sent := a.counted(); sent < seconds || sent > 12*seconds {
			t.Errorf("%d hellos in %d s", sent, seconds)
		}
	})
}

// TestOffersAsked: a peer that offers key after key is answered as often, at most.
func TestOffersAsked(t *testing.T) {
	inMode(t, l2ext.SecureFast)
	synctest.Test(t, func(t *testing.T) {
		a := newAlone(t)
		a.counted()
		const offers = 1000
		for i := range uint64(offers) {
			a.say(1+i, uint32(i))
			a.say(1+i, uint32(i)) // is not new
			time.Sleep(time.Millisecond)
		}
		if told, _ := a.counted(); told > offers+10 {
			t.Errorf("%d messages for %d offers", told, offers)
		}
	})
}
