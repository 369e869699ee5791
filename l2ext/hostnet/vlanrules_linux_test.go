package hostnet

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
)

// TestStormInVLAN: a storm in another VLAN takes nothing of the segment's limits, and in
// its own it is told what frames are: questions have a limit of their own.
func TestStormInVLAN(t *testing.T) {
	n, tap := newLAN(t, machine(t))
	w := inVLANs("br0", 100)[0]
	w.Policy.Limits = l2ext.Limits{Resolve: 40, Broadcast: 20, Multicast: 100, Unknown: 1}
	applied(t, n, w)
	send := func(k int, tag, kind string) (passed uint64) {
		before := sent(t, n)
		for range k {
			_, err := tap.Write(frame("\xff\xff\xff\xff\xff\xff", tag+kind, 46))
			check(t, err)
		}
		return sent(t, n) - before
	}
	const other, untagged, priority, provider, own = "\x81\x00\x00\x63", "", "\x81\x00\xe0\x00", "\x88\xa8\x00\x64", "\x81\x00\xe0\x64"
	for _, tag := range []string{other, untagged, priority, provider} {
		if k := send(500, tag, "\x08\x06"); k != 0 {
			t.Errorf("%d frames with the tag % x passed", k, tag)
		}
	}
	a, err := n.Apply(t.Context(), []l2ext.Wish{w})
	check(t, err)
	if a[0].OtherVLANs != 2000 || a[0].Limited != 0 {
		t.Errorf("%d frames were counted as of other VLANs, %d as over a limit, want 2000, 0", a[0].OtherVLANs, a[0].Limited)
	}
	start := time.Now()
	for _, tt := range []struct {
		kind string
		most int // of one port, in a second
	}{{"\x08\x06", 20}, {"\x88\xb6", 10}} {
		passed, took := send(150, own, tt.kind), time.Since(start).Seconds()
		if passed < uint64(tt.most) || float64(passed) > float64(tt.most)*(1+took)+2 {
			t.Errorf("of 150 frames of kind % x in its VLAN, %d passed in %.2f s, want about %d", tt.kind, passed, took, tt.most)
		}
	}
	w.Policy.Limits.Broadcast = 30
	w.VLAN, w.Shared = 0, true // what has no tag, beside other segments
	for tag, want := range map[string]uint64{other: 0, own: 0, provider: 0, untagged: 1, priority: 1} {
		applied(t, n, w)
		if k := send(1, tag, "\x88\xb6"); k != want {
			t.Errorf("%d frames with the tag % x passed to what has none", k, tag)
		}
	}
	w.VLAN, w.Shared = 100, false
	if a, err = n.Apply(t.Context(), []l2ext.Wish{w}); err != nil || a[0].OtherVLANs != 2003 {
		t.Errorf("with other limits, %d are counted, %v", a[0].OtherVLANs, err)
	}
}

// TestHostsOfOtherVLANs: a frame for one host is dropped before it comes to our port if it
// is of no segment of the bridge; one that is of another segment's may be for a host
// that is in both.
func TestHostsOfOtherVLANs(t *testing.T) {
	n, tap := newLAN(t, machine(t))
	const none, other, untagged, priority, provider, own = "\x81\x00\x00\x63", "\x81\x00\xe0\xc8", "", "\x81\x00\xe0\x00", "\x88\xa8\x00\x64", "\x81\x00\xe0\x64"
	for _, tt := range []struct {
		vids   []uint16
		passes map[string]uint64
		drops  uint64 // so far
	}{
		{[]uint16{100, 200, 0}, map[string]uint64{own: 1, other: 1, untagged: 1, priority: 1}, 2},
		{[]uint16{100, 200}, map[string]uint64{own: 1, other: 1}, 6},
		{[]uint16{100}, map[string]uint64{own: 1}, 11},
		{[]uint16{0, 200}, map[string]uint64{other: 1, untagged: 1, priority: 1}, 14},
	} {
		wishes := inVLANs("br0", tt.vids...)
		for i := range wishes {
			wishes[i].Policy.Unknown = l2ext.UnknownLimited // the bridge floods
		}
		applied(t, n, wishes...)
		for _, tag := range []string{none, other, untagged, priority, provider, own} {
			before := sent(t, n)
			_, err := tap.Write(frame("\x52\x54\x00\x00\x00\x01", tag+"\x88\xb6", 46))
			check(t, err)
			if k := sent(t, n) - before; k != tt.passes[tag] {
				t.Errorf("segments of VLANs %d: %d frames with the tag % x came to the port of the first", tt.vids, k, tag)
			}
		}
		a, err := n.Apply(t.Context(), wishes)
		check(t, err)
		if a[0].OtherVLANs != tt.drops {
			t.Errorf("segments of VLANs %d: %d frames were counted, want %d", tt.vids, a[0].OtherVLANs, tt.drops)
		}
	}
}
