package gateway_test

import (
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/page"
)

// rot flips one bit in every page that s holds on a shelf, "sent" or
// "received", and tells how many. It knows how dedup lays out its memory; when
// that changes, it finds nothing and the test fails.
func rot(s *dedup.Store, shelf string) (pages int) {
	s.Flush() // the disk's goroutine reads memory as well
	ring := reflect.ValueOf(s).Elem().FieldByName(shelf).Elem().FieldByName("ring")
	for i := range ring.Len() {
		segment := (*unsafe.Pointer)(ring.Index(i).Addr().UnsafePointer())
		g := atomic.LoadPointer(segment)
		if g == nil {
			continue
		}
		v := reflect.NewAt(segmentType(ring), g).Elem()
		slab := atomic.LoadPointer((*unsafe.Pointer)(v.FieldByName("mem").Addr().UnsafePointer()))
		mem := (*[1 << 20]byte)(slab)
		for n := int(v.FieldByName("filled").Uint()) - 1; n >= 0; n-- {
			mem[n*page.Size+1234] ^= 4
			pages++
		}
	}
	return pages
}

// segmentType digs T out of []atomic.Pointer[T].
func segmentType(ring reflect.Value) reflect.Type {
	// type Pointer[T any] struct { _ [0]*T; _ noCopy; v unsafe.Pointer }
	return ring.Type().Elem().Field(0).Type.Elem().Elem()
}

// Errors of memory and of machines: each is caught before the guest has one
// wrong byte. Pages that have rotten in a store come from the other end; when
// that cannot help the VM goes on at its source, and the next move works.
func TestPlantedErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		plant func(t *testing.T, a, b *site) (clear func())
		back  bool // the error is met on the way back
		heals bool // the move goes through
	}{
		{"record on the wire", func(t *testing.T, a, b *site) func() {
			done := false
			a.g.Spoil(func(msg []byte) {
				if !done && len(msg) > 2000 {
					done = true
					msg[len(msg)/2] ^= 1
				}
			})
			return func() { a.g.Spoil(nil) }
		}, false, false},
		{"store of the receiver", func(t *testing.T, a, b *site) func() {
			if n := rot(b.g.Store("a"), "received") + rot(b.g.Store("a"), "sent"); n < 100 {
				t.Fatalf("%d pages in the store of b", n)
			}
			return func() {}
		}, true, true},
		{"store of the receiver, for good", func(t *testing.T, a, b *site) func() {
			if n := rot(b.g.Store("a"), "received") + rot(b.g.Store("a"), "sent"); n < 100 {
				t.Fatalf("%d pages in the store of b", n)
			}
			a.g.RefusePages(true)
			return func() { a.g.RefusePages(false) }
		}, true, false},
		{"store of the sender", func(t *testing.T, a, b *site) func() {
			if n := rot(a.g.Store("b"), "sent") + rot(a.g.Store("b"), "received"); n < 100 {
				t.Fatalf("%d pages in the store of a", n)
			}
			return func() {}
		}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b, ledger := newPair(t, hvtest.Guest{Memory: 4 << 20, Dirty: 64})
			if c.back { // there and back, so that the stores are full
				for _, way := range [][2]*site{{a, b}, {b, a}} {
					if j := way[0].migrate(way[1].name); j.State != gateway.JobDone {
						t.Fatal(j.Error)
					}
					noMoves(t, a, b)
				}
			}
			clear := c.plant(t, a, b)
			j := a.migrate("b")
			clear()
			if c.heals && j.State == gateway.JobDone {
				// The sender compares before it refers, the receiver asks for what
				// it has lost.
				ledger.Check(t, "db1", "host-b")
				return
			}
			// The hypervisor complains at once when its leg is cut off; the job
			// still names the cause.
			if c.heals || j.State != gateway.JobFailed || strings.Contains(j.Error, "\n") || !strings.Contains(j.Error, "message ") {
				t.Fatalf("%s: %s", j.State, j.Error)
			}
			t.Log(j.Error)
			ledger.Check(t, "db1", "host-a")
			noMoves(t, a, b)
			if j := a.migrate("b"); j.State != gateway.JobDone {
				t.Errorf("the next move: %s", j.Error)
			}
			ledger.Check(t, "db1", "host-b")
			noChannels(t, 0, a, b)
		})
	}
}
