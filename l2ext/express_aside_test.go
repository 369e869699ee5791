package l2ext

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// numbered is a frame to a MAC with a number in it.
func numbered(to MAC, n, size int) parcel {
	f := benchFrame(to, local, size)
	binary.BigEndian.PutUint32(f[15:], uint32(n))
	return parcel{frame: f}
}

// TestAsideIsBounded fills the queue, and takes out of it.
func TestAsideIsBounded(t *testing.T) {
	a, seg, now := newAside(), &segment{}, time.Unix(1000, 0)
	const size = 1500
	fit := asideHeld / (size + fast.OffloadLen + frameCost)
	for i := range fit + 100 {
		a.put(now, seg, numbered(remote, i, size), sending{released: i%2 == 0})
	}
	frames := a.take()
	if len(frames) != fit || seg.counts[DropAside].Load() != 100 || a.held > asideHeld {
		t.Fatalf("%d frames of %d are held, %d dropped", len(frames), fit, seg.counts[DropAside].Load())
	}
	for i, f := range frames {
		if n := binary.BigEndian.Uint32(f.message[fast.OffloadLen+15:]); int(n) != i {
			t.Fatalf("frame %d comes as number %d", n, i)
		}
	}
	a.put(now, seg, numbered(remote, 0, size), sending{}) // those that are being sent still count
	if n := seg.counts[DropAside].Load(); n != 101 {
		t.Errorf("%d frames were dropped", n)
	}
	a.done(frames)
	if a.held != 0 || a.released.Load() != 0 || len(a.lots) != 0 {
		t.Errorf("in the end %d bytes, %d frames of lots for %d MACs", a.held, a.released.Load(), len(a.lots))
	}
	a.put(now, seg, numbered(remote, 0, size), sending{released: true})
	a.end()
	if a.precedes(remote) || a.follow(now, seg, numbered(remote, 1, size)) {
		t.Error("ended: a frame follows what is gone")
	}
	a.put(now, seg, numbered(remote, 0, size), sending{released: true})
	if n := seg.counts[DropPeerDown].Load(); n != 2 || a.held != 0 || a.released.Load() != 0 {
		t.Errorf("ended: %d dropped, %d bytes held", n, a.held)
	}
}

// TestAsideKeepsACopy: what is put aside is lent, but for what was released.
func TestAsideKeepsACopy(t *testing.T) {
	a, seg, now := newAside(), &segment{}, time.Unix(1000, 0)
	message := func() parcel {
		x, err := parcelOf(append(fast.Plain(nil), benchFrame(remote, local, 60)...))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	lent, owned, behind := message(), message(), message()
	a.put(now, seg, lent, sending{})
	a.put(now, seg, owned, sending{released: true})
	if !a.follow(now, seg, behind) {
		t.Fatal("a frame does not follow what was released")
	}
	clear(lent.message)
	clear(behind.message)
	frames := a.take()
	for i, f := range frames {
		if f.mac() != remote {
			t.Errorf("frame %d is now for %v", i, f.mac())
		}
	}
	if &frames[1].message[0] != &owned.message[0] {
		t.Error("what was released is copied")
	}
}

// TestAsideIsFollowed: a frame of a reader goes behind what was parked for its MAC, until all
// of that is sent, and what went behind it.
func TestAsideIsFollowed(t *testing.T) {
	a, seg, now := newAside(), &segment{}, time.Unix(1000, 0)
	follow := func(mac MAC, n int) bool {
		before := a.precedes(mac)
		taken := a.follow(now, seg, numbered(mac, n, 60))
		if before != taken {
			t.Errorf("frame %d: precedes %t, taken %t", n, before, taken)
		}
		return taken
	}
	a.put(now, seg, numbered(remote, 1, 60), sending{released: true})
	a.put(now, seg, numbered(local, 2, 60), sending{}) // was not parked: nobody follows it
	if follow(local, 3) || !follow(remote, 4) {
		t.Error("followed is what was not released, or not what was")
	}
	frames := a.take()
	var numbers []uint32
	for _, f := range frames {
		numbers = append(numbers, binary.BigEndian.Uint32(f.message[fast.OffloadLen+15:]))
	}
	if !slices.Equal(numbers, []uint32{1, 2, 4}) || frames[2].redirected {
		t.Errorf("order %v", numbers)
	}
	a.done(frames[:2])
	if !follow(remote, 5) { // 4 is being sent
		t.Error("a frame overtakes one that followed")
	}
	a.done(frames[2:])
	a.done(a.take())
	if follow(remote, 6) || a.held != 0 || len(a.lots) != 0 || a.released.Load() != 0 {
		t.Errorf("in the end %d bytes, %d frames of lots for %d MACs", a.held, a.released.Load(), len(a.lots))
	}
}

// TestReaderFollowsParked: while the line lets nothing through, a port's reader goes on behind
// what was parked. Frames that it had before come first, those for others do not wait.
func TestReaderFollowsParked(t *testing.T) {
	x := &staleExpress{}
	m, seg, p := asideOver(t, x)
	o := newExpressOut(m)
	o.add(seg, "b", numbered(remote, 1, 60))
	p.express.aside.put(time.Now(), seg, numbered(remote, 2, 60), sending{released: true})
	if x.sent != 0 {
		t.Fatal("a frame does not wait for others")
	}
	o.add(seg, "b", numbered(remote, 3, 60))
	if x.sent != 1 || seg.counts[Sent].Load() != 1 || len(p.express.aside.take()) != 2 {
		t.Errorf("%d batches with %d frames were sent before", x.sent, seg.counts[Sent].Load())
	}
	o.add(seg, "b", numbered(local, 4, 60))
	o.flush()
	if seg.counts[Sent].Load() != 2 {
		t.Errorf("%d frames were sent", seg.counts[Sent].Load())
	}
}

// staleExpress counts what is sent.
type staleExpress struct{ sent int }

func (*staleExpress) Secret(string) (Secret, error) { return Secret{1}, nil }
func (*staleExpress) Size(string) int               { return fast.MinDatagram }
func (x *staleExpress) Send(string, []byte, int) error {
	x.sent++
	return nil
}

// ratedExpress is a line that takes so many bytes a second, one batch after the other.
type ratedExpress struct {
	staleExpress
	rate float64
	turn chan struct{} // 1: who has put something in may send
}

func (x *ratedExpress) Send(_ string, b []byte, _ int) error {
	x.turn <- struct{}{}
	defer func() { <-x.turn }()
	time.Sleep(time.Duration(float64(len(b)) / x.rate * float64(time.Second)))
	return nil
}

// asideOver is a segment with a peer whose frames go by a line, and are sent by nobody yet.
func asideOver(t *testing.T, x Express) (m *Manager, seg *segment, p *peer) {
	t.Helper()
	m = expressManager(t, 1)
	m.cfg.Express = x
	seg, p = m.segments()[1], &peer{site: "b"}
	p.express.aside = newAside()
	sealer, err := fast.NewSealer(Secret{1}, fast.Way{From: "a", To: "b"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	p.express.out.Store(&outKey{sealer: sealer})
	m.peers["b"] = p
	return m, seg, p
}

// TestAsideUnderOverload: a host sends twice what the line takes, to a MAC behind whose
// parked frames its own have to go. It never keeps much waiting, what is parked for others
// finds room at any time, and when it sends less there soon is nothing to follow any more.
func TestAsideUnderOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 2.5e6, 1500 // bytes per second: 20 Mbit/s
		m, seg, p := asideOver(t, &ratedExpress{rate: rate, turn: make(chan struct{}, 1)})
		a := p.express.aside
		held := func() int {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.held
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() { m.sendAside(ctx, p) })
		park := func(mac MAC) (dropped uint64) {
			before := seg.counts[DropAside].Load()
			for i := range maxParkedMAC / 2000 {
				a.put(time.Now(), seg, numbered(mac, i, size), sending{released: true})
			}
			return seg.counts[DropAside].Load() - before
		}
		o := newExpressOut(m)
		send := func(d time.Duration, share float64) (most int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				for range int(share * rate / size / 100) {
					o.add(seg, "b", numbered(remote, 0, size))
				}
				o.flush()
				most = max(most, held())
			}
			return most
		}
		park(remote)
		send(3*time.Second, 2)
		if most := send(3*time.Second, 2); most > asideFollow {
			t.Errorf("%.0f ms of the line wait after a while", float64(most)/rate*1000)
		}
		for i := range byte(4) {
			if n := park(MAC{2, 2, 2, 2, 2, i}); n > 0 {
				t.Errorf("%d parked frames for another MAC find no room", n)
			}
		}
		send(5*time.Second, 2)
		send(time.Second, 0.5)
		if a.precedes(remote) {
			t.Errorf("with half of the line, there are %d bytes to follow", held())
		}
	})
}

// TestAsideGrowsOld: what has waited for too long is dropped.
func TestAsideGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &staleExpress{}
		m, seg, p := asideOver(t, x)
		p.express.aside.put(time.Now(), seg, numbered(remote, 1, 60), sending{})
		time.Sleep(asideAge + time.Second)
		p.express.aside.put(time.Now(), seg, numbered(remote, 2, 60), sending{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { m.sendAside(ctx, p) })
		synctest.Wait()
		cancel()
		wg.Wait()
		if sent, dropped := seg.counts[Sent].Load(), seg.counts[DropAside].Load(); sent != 1 || dropped != 1 || x.sent != 1 {
			t.Errorf("%d frames in %d batches were sent, %d dropped", sent, x.sent, dropped)
		}
	})
}
