package l2ext

import (
	"fmt"
	"slices"
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

// TestDigestBehindAFullQueue: a site for which a message found no room gets the digest that mends it as soon as nothing
// waits for it, and no other then.
func TestDigestBehindAFullQueue(t *testing.T) {
	m, err := New(Config{Site: "a", Host: &sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{site: "b", queue: make(chan []byte, 4), up: true}
	m.peers["b"] = p
	seg := m.keepOrMake(nil, Segment{Name: "prod", VNI: 100, Sites: []string{"b"}})
	m.state.Store(&map[uint32]*segment{100: seg})
	now := time.Now()
	seg.digested = now
	tick := func() (kinds []announce.Kind) {
		now = now.Add(tickEvery)
		m.hastenDigests()
		m.sendDigests(now)
		for range len(p.queue) {
			msg, err := announce.Parse(<-p.queue)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, msg.Kind)
		}
		return kinds
	}
	for range 5 {
		m.enqueue(seg, "b", announce.Message{Kind: announce.Over, VNI: 100, Job: "j"})
	}
	if got := tick(); slices.Contains(got, announce.Digest) {
		t.Errorf("while messages wait: %v", got)
	}
	if got := tick(); !slices.Contains(got, announce.Digest) {
		t.Errorf("when they do not: %v", got)
	}
	if got := tick(); len(got) > 0 {
		t.Errorf("once more: %v", got)
	}
}

// TestDigestsWhileSomethingIsLost: where a message to a site is lost again and again, all of
// its segments are told of in turn.
func TestDigestsWhileSomethingIsLost(t *testing.T) {
	m, err := New(Config{Site: "a", Host: &sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{site: "b", queue: make(chan []byte, maxQueued), up: true}
	m.peers["b"] = p
	const many = 5 * digestsAtOnce
	segs := make(map[uint32]*segment)
	for i := uint32(1); i <= many; i++ {
		segs[i] = m.keepOrMake(nil, Segment{Name: fmt.Sprint(i), VNI: i, Sites: []string{"b"}})
	}
	m.state.Store(&segs)
	told := make(map[uint32]bool)
	for now, tick := time.Now(), 0; tick < 6; tick++ {
		now = now.Add(tickEvery)
		p.behind.Store(true)
		m.hastenDigests()
		m.sendDigests(now)
		for range len(p.queue) {
			msg, err := announce.Parse(<-p.queue)
			if err != nil {
				t.Fatal(err)
			}
			if msg.Kind == announce.Digest {
				told[msg.VNI] = true
			}
		}
	}
	if len(told) < many {
		t.Errorf("%d of %d segments were told of", len(told), many)
	}
}
