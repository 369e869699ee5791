package l2ext

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// sinkHost and sinkCarrier take everything and cost nothing.
type sinkHost struct{ closing chan struct{} }

func (h sinkHost) Apply(_ context.Context, w []Wish) ([]Attached, error) {
	return make([]Attached, len(w)), nil
}
func (h sinkHost) Point(uint32, []Entry) error { return nil }
func (h sinkHost) Watch(ctx context.Context, _ func(Sighting)) error {
	<-ctx.Done()
	return nil
}
func (h sinkHost) Mute(string) error                       { return nil }
func (h sinkHost) Unmute(string) error                     { return nil }
func (h sinkHost) Heard(uint32, MAC) (time.Duration, bool) { return 0, false }
func (h sinkHost) Traffic(uint32) (Traffic, bool)          { return Traffic{}, false }
func (h sinkHost) PortSegments(string) []uint32            { return nil }
func (h sinkHost) Capture(context.Context, uint32, CaptureOptions, func(Captured) error) (uint64, error) {
	return 0, nil
}
func (h sinkHost) ReadPacket([]byte) (int, error) { <-h.closing; return 0, os.ErrClosed }
func (h sinkHost) WritePacket([]byte) error       { return nil }
func (h sinkHost) Close() error                   { return nil }

type sinkCarrier struct{}

func (sinkCarrier) SendFrame(string, []byte) error                   { return nil }
func (sinkCarrier) MaxDatagram(string) int                           { return 1415 }
func (sinkCarrier) SendUrgent(context.Context, string, []byte) error { return nil }

func benchManager(b *testing.B, vlan uint16) *Manager {
	h := sinkHost{closing: make(chan struct{})}
	m, err := New(Config{Site: "a", Host: h, Carrier: sinkCarrier{}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx) })
	b.Cleanup(func() { cancel(); close(h.closing); wg.Wait() })
	if err := m.Apply(ctx, []Segment{{Name: "prod", VNI: 100, Bridge: "br", VLAN: vlan, Sites: []string{"b"}}}); err != nil {
		b.Fatal(err)
	}
	seg, now := m.segments()[100], time.Now()
	seg.mu.Lock()
	defer seg.mu.Unlock()
	for i := range 1000 { // as many hosts as a large segment has
		seg.table.see(now, MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, false)
	}
	seg.table.see(now, local, false)
	seg.table.move(now, remote, "b", "j", 1)
	return m
}

var local, remote = MAC{2, 0, 0, 1, 0, 1}, MAC{2, 0, 0, 1, 0, 2}

func benchFrame(dst, src MAC, size int) []byte {
	f := append(append([]byte(nil), dst[:]...), src[:]...)
	return append(append(f, 8, 0, 0x45), make([]byte, size-15)...)
}

// benchEach runs a benchmark for frames of each size, and for segments without tags and with.
func benchEach(b *testing.B, run func(b *testing.B, size int, vlan uint16)) {
	for _, vlan := range []uint16{0, 100} {
		for _, size := range []int{64, 1514} {
			name := fmt.Sprintf("frame=%d", size)
			if vlan != 0 {
				name += fmt.Sprintf("/vlan=%d", vlan)
			}
			b.Run(name, func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				run(b, size, vlan)
			})
		}
	}
}

// BenchmarkOutward: from a packet of the kernel to datagrams.
func BenchmarkOutward(b *testing.B) {
	benchEach(b, func(b *testing.B, size int, vlan uint16) {
		o := outward{m: benchManager(b, vlan)}
		frame := benchFrame(remote, local, size)
		if vlan != 0 {
			frame = ether.AppendTagged(nil, frame, vlan)
		}
		p := vxlan.Packet{VNI: 100, From: vxlan.Self, To: vxlan.FirstSite, Frame: frame}.Append(nil)
		head := slices.Clone(p[vxlan.Overhead:][:20]) // where the gateway writes
		for b.Loop() {
			copy(p[vxlan.Overhead:], head)
			o.packet(time.Now(), p)
		}
		if n := o.m.Segments()[0].Counts[Sent]; n < uint64(b.N) {
			b.Errorf("%d frames of %d were sent", n, b.N)
		}
	})
}

// BenchmarkInward: from datagrams to a packet for the kernel.
func BenchmarkInward(b *testing.B) {
	benchEach(b, func(b *testing.B, size int, vlan uint16) {
		m := benchManager(b, vlan)
		frame := benchFrame(local, remote, size)
		parts := frag.Parts(size, 1415)
		var grams [][]byte
		for i := range parts {
			h := frag.Header{VNI: 100, Part: uint8(i), Parts: uint8(parts)}
			grams = append(grams, append(h.Append(nil), frag.Piece(frame, i, parts)...))
		}
		for b.Loop() {
			for _, g := range grams {
				if err := m.HandleDatagram("b", g); err != nil {
					b.Fatal(err)
				}
			}
		}
		if n := m.Segments()[0].Counts[Received]; n < uint64(b.N) {
			b.Errorf("%d frames of %d were delivered", n, b.N)
		}
	})
}

// BenchmarkDigest: what one change of a binding costs.
func BenchmarkDigest(b *testing.B) {
	t, now := newTable("a"), time.Now()
	for b.Loop() {
		t.move(now, local, "b", "j", 1)
	}
}
