package l2ext

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// recordingHost is a machine that keeps what it is given for its bridges.
type recordingHost struct {
	sinkHost
	mu     sync.Mutex // guards what follows
	frames map[uint32][][]byte
}

func (h *recordingHost) WritePacket(b []byte) error {
	p, _, err := vxlan.Parse(b)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames[p.VNI] = append(h.frames[p.VNI], bytes.Clone(p.Frame))
	return nil
}

// take tells what a segment's bridge was given of a sender.
func (h *recordingHost) take(vni uint32, src MAC) (frames [][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.frames[vni] {
		if MAC(f[6:12]) == src {
			frames = append(frames, f)
		}
	}
	h.frames[vni] = nil
	return frames
}

// TestTagsFromOtherSites: what comes from another site gets the tag of the segment's VLAN, if
// it has none; with one it is dropped, but for one that has only a priority.
func TestTagsFromOtherSites(t *testing.T) {
	h := &recordingHost{sinkHost: sinkHost{closing: make(chan struct{})}, frames: make(map[uint32][][]byte)}
	m, err := New(Config{Site: "a", Host: h, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	defer run.Wait()
	defer close(h.closing)
	defer cancel()
	const tagged, bare, own = 100, 101, 102 // VNIs: VLAN 7; on the same bridge without tags; a bridge to itself
	if err := m.Apply(ctx, []Segment{
		{Name: "tagged", VNI: tagged, Bridge: "br", VLAN: 7, Sites: []string{"b"}},
		{Name: "bare", VNI: bare, Bridge: "br", Sites: []string{"b"}},
		{Name: "own", VNI: own, Bridge: "other", Sites: []string{"b"}},
	}); err != nil {
		t.Fatal(err)
	}
	plain := benchFrame(ether.Broadcast, remote, 100)
	with := func(tag ...byte) []byte { return slices.Insert(bytes.Clone(plain), ether.MACsLen, tag...) }
	in7 := with(0x81, 0, 0, 7)
	priority, in8, provider, both := with(0x81, 0, 0xe0, 0), with(0x81, 0, 0, 8), with(0x88, 0xa8, 0, 7), with(0x81, 0, 0, 0, 0x81, 0, 0, 7)
	for _, tt := range []struct {
		name  string
		vni   uint32
		frame []byte
		want  []byte // nil: it is dropped
	}{
		{"plain to a VLAN", tagged, plain, in7},
		{"priority to a VLAN", tagged, priority, in7},
		{"tag to a VLAN", tagged, in8, nil},
		{"its own tag to a VLAN", tagged, in7, nil},
		{"a provider's tag to a VLAN", tagged, provider, nil},
		{"two tags to a VLAN", tagged, both, nil},
		{"plain beside a VLAN", bare, plain, plain},
		{"priority beside a VLAN", bare, priority, priority},
		{"tag beside a VLAN", bare, in7, nil},
		{"a provider's tag beside a VLAN", bare, provider, nil},
		{"plain", own, plain, plain},
		{"tag", own, in8, in8},
		{"a provider's tag", own, provider, provider},
	} {
		before := m.segments()[tt.vni].counts[DropVLAN].Load()
		datagram := append(frag.Header{VNI: tt.vni, Parts: 1}.Append(nil), tt.frame...)
		if err := m.HandleDatagram("b", datagram); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		var got []byte
		if frames := h.take(tt.vni, remote); len(frames) > 0 {
			got = frames[0]
		}
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%s: the LAN got % x, want % x", tt.name, got[:min(len(got), 20)], tt.want[:min(len(tt.want), 20)])
		}
		if dropped := m.segments()[tt.vni].counts[DropVLAN].Load() - before; (dropped == 1) != (tt.want == nil) {
			t.Errorf("%s: %d counted as dropped", tt.name, dropped)
		}
	}
}

// FuzzTags: whatever a LAN or a site sends, tagged or not, breaks nothing, and nothing that
// has a tag gets out of a segment with a VLAN.
func FuzzTags(f *testing.F) {
	plain := benchFrame(remote, local, 60)
	f.Add(plain, uint16(7))
	f.Add(ether.AppendTagged(nil, plain, 7), uint16(7))
	f.Add(ether.AppendTagged(nil, ether.AppendTagged(nil, plain, 8), 0), uint16(0))
	f.Fuzz(func(t *testing.T, frame []byte, vlan uint16) {
		vlan = min(vlan, MaxVLAN)
		s, other := &segment{Segment: Segment{VLAN: vlan}, table: newTable("a")}, &segment{Segment: Segment{VLAN: vlan ^ 1}, table: newTable("a")}
		s.vlans = map[uint16]*segment{vlan: s, vlan ^ 1: other}
		message := append(fast.Plain(nil), frame...)
		for _, x := range []parcel{{frame: bytes.Clone(frame)}, {frame: message[fast.OffloadLen:], message: message}} {
			if x.message != nil && len(frame) < ether.HeaderLen {
				continue // SplitMessage refuses it
			}
			if of, x, ok := s.ofLAN(x); ok && of.VLAN != 0 && ether.Tagged(x.frame) {
				t.Errorf("% x is of VLAN %d, and has a tag still: % x", frame, of.VLAN, x.frame)
			}
		}
		if x, ok := s.fromWAN(parcel{frame: bytes.Clone(frame)}); ok && vlan != 0 {
			if ether.Tagged(x.frame) {
				t.Errorf("% x of another site has a tag still: % x", frame, x.frame)
			}
		}
	})
}
