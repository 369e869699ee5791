package gateway

import (
	"errors"
	"testing"
	"time"
)

// TestNoDrainWhileTheVMStands: the connections of a move that is given up when the VM may stand
// still end before any order to the source, which hears none while nobody takes its bytes.
func TestNoDrainWhileTheVMStands(t *testing.T) {
	why := errors.New("given up")
	for name, m := range map[string]*sourceMove{
		"the VM has stopped":                 {stopAt: time.Now()},
		"the source is about to switch over": {switching: true},
		"multifd":                            {entry: Entry{Spec: Spec{Channels: 2}}},
	} {
		var stopped error
		m.legs = &runningLegs{stop: func(err error) { stopped = err }}
		m.s = new(session)
		if m.drain(why); !errors.Is(stopped, why) || m.s.givenUp() != nil {
			t.Errorf("%s: its connections end with %v, or are drained: %v", name, stopped, m.s.givenUp())
		}
	}
}
