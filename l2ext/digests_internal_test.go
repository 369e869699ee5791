package l2ext

import (
	"fmt"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// TestDigestsOfMany has many more segments than messages may wait for a site: what is said of
// each again and again finds room, and is said as often as for one.
func TestDigestsOfMany(t *testing.T) {
	for _, many := range []int{1, 300, 1500} {
		t.Run(fmt.Sprint(many), func(t *testing.T) {
			m, err := New(Config{Site: "a", Host: &sinkHost{}, Carrier: sinkCarrier{}})
			if err != nil {
				t.Fatal(err)
			}
			p := &peer{site: "b", queue: make(chan []byte, maxQueued), up: true}
			m.peers["b"] = p
			segs := make(map[uint32]*segment)
			for i := uint32(1); i <= uint32(many); i++ {
				segs[i] = m.keepOrMake(nil, Segment{Name: fmt.Sprint(i), VNI: i, Sites: []string{"b"}})
			}
			m.state.Store(&segs)
			const ticks = 60
			start, most, last := time.Now(), 0, make(map[uint32]int)
			for tick := 1; tick <= ticks; tick++ {
				m.sendDigests(start.Add(time.Duration(tick) * tickEvery))
				for range len(p.queue) {
					msg, err := announce.Parse(<-p.queue)
					if err != nil {
						t.Fatal(err)
					}
					if msg.Kind == announce.Digest {
						most, last[msg.VNI] = max(most, tick-last[msg.VNI]), tick
					}
				}
			}
			for vni, seg := range segs {
				if most = max(most, ticks-last[vni]); seg.counts[Unsent].Load() > 0 {
					t.Fatalf("segment %d: a message has found no room", vni)
				}
			}
			if limit := 2 * int(digestEvery/tickEvery); most > limit { // those that are made at once wait in turn for the first
				t.Errorf("nothing was said of a segment for %d s, want %d at most", most, limit)
			}
		})
	}
}
