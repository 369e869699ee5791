package l2ext

import (
	"slices"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// TestFrozenBehindAFullQueue: what is frozen is told again where there was no room for it, be it that it is nothing.
func TestFrozenBehindAFullQueue(t *testing.T) {
	m, err := New(Config{Site: "a", Host: &sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{site: "b", queue: make(chan []byte, 1), up: true}
	p.takesFrozen.Store(true)
	m.peers["b"] = p
	seg := m.keepOrMake(nil, Segment{Name: "prod", VNI: 100, Sites: []string{"b"}})
	m.state.Store(&map[uint32]*segment{100: seg})
	now, mac := time.Now(), MAC{2, 0, 0, 0, 0, 9}
	seg.table.see(now, mac, true)
	heard := func() (kinds []announce.Kind, frozen int) {
		for range len(p.queue) {
			msg, err := announce.Parse(<-p.queue)
			if err != nil {
				t.Fatal(err)
			}
			kinds, frozen = append(kinds, msg.Kind), len(msg.MACs)
		}
		return kinds, frozen
	}
	if m.repeatFrozen(seg, "b"); len(p.queue) > 0 {
		t.Error("told of MACs where none was ever frozen")
	}
	for _, until := range []time.Time{now.Add(time.Minute), {}} {
		seg.table.byMAC[mac].frozen, seg.table.froze = until, now.Add(time.Minute)
		m.enqueue(seg, "b", announce.Message{Kind: announce.Over, VNI: 100, Job: "j"})
		m.tellFrozen(now)
		if got, _ := heard(); !slices.Equal(got, []announce.Kind{announce.Over}) {
			t.Errorf("into a full queue: %v", got)
		}
		want := 0
		if !until.IsZero() {
			want = 1
		}
		m.tellFrozen(now)
		if got, n := heard(); !slices.Equal(got, []announce.Kind{announce.Frozen}) || n != want {
			t.Errorf("when there is room: %v, of %d MACs, want %d", got, n, want)
		}
		m.tellFrozen(now)
		if got, _ := heard(); got != nil {
			t.Errorf("once more: %v", got)
		}
		m.repeatFrozen(seg, "b")
		if got, n := heard(); !slices.Equal(got, []announce.Kind{announce.Frozen}) || n != want {
			t.Errorf("repeated: %v, of %d MACs, want %d", got, n, want)
		}
	}
}
