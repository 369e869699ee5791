package l2ext

import (
	"context"
	"encoding/binary"
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
	a.follow(remote) // does not wait
	a.put(now, seg, numbered(remote, 0, size), sending{released: true})
	if n := seg.counts[DropPeerDown].Load(); n != 2 || a.held != 0 || a.released.Load() != 0 {
		t.Errorf("ended: %d dropped, %d bytes held", n, a.held)
	}
}

// TestAsideKeepsACopy: what is put aside is lent.
func TestAsideKeepsACopy(t *testing.T) {
	a := newAside()
	message := append(fast.Plain(nil), benchFrame(remote, local, 60)...)
	x, err := parcelOf(message)
	if err != nil {
		t.Fatal(err)
	}
	a.put(time.Unix(1000, 0), &segment{}, x, sending{})
	clear(message)
	if f := a.take()[0]; f.mac() != remote {
		t.Errorf("the frame is now for %v", f.mac())
	}
}

// TestAsideIsFollowed: a frame of a reader waits until what was parked for its MAC is sent.
func TestAsideIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, seg := newAside(), &segment{}
		a.put(time.Now(), seg, numbered(remote, 1, 60), sending{released: true})
		a.put(time.Now(), seg, numbered(remote, 2, 60), sending{released: true})
		a.put(time.Now(), seg, numbered(local, 3, 60), sending{}) // was not parked: nobody waits for it
		a.follow(local)
		var wg sync.WaitGroup
		followed := false
		wg.Go(func() { a.follow(remote); followed = true })
		frames := a.take()
		for i := range frames {
			synctest.Wait()
			if want := i == 2; followed != want {
				t.Errorf("after %d frames: followed %t", i, followed)
			}
			a.done(frames[i : i+1])
		}
		wg.Wait()
	})
}

// staleExpress counts what is sent.
type staleExpress struct{ sent int }

func (*staleExpress) Secret(string) (Secret, error) { return Secret{1}, nil }
func (*staleExpress) Size(string) int               { return fast.MinDatagram }
func (x *staleExpress) Send(string, []byte, int) error {
	x.sent++
	return nil
}

// TestAsideGrowsOld: what has waited for too long is dropped.
func TestAsideGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &staleExpress{}
		m := expressManager(t, 1)
		m.cfg.Express = x
		seg, p := m.segments()[1], &peer{site: "b"}
		p.express.aside = newAside()
		sealer, err := fast.NewSealer(Secret{1}, fast.Way{From: "a", To: "b"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		p.express.out.Store(&outKey{sealer: sealer})
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
