package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// TestStandingVMIsNotWaitedFor: the connections to the source of a move that is given up
// when the VM may stand still end before any order to the source, which hears none while
// nobody takes its bytes; while the VM runs, the source ends them.
func TestStandingVMIsNotWaitedFor(t *testing.T) {
	for name, tt := range map[string]struct {
		m    sourceMove
		cuts bool
	}{
		"the VM runs":                          {sourceMove{}, false},
		"the VM runs, multifd":                 {sourceMove{entry: Entry{Spec: Spec{Channels: 2}}}, false},
		"the VM has stopped":                   {sourceMove{stopAt: time.Now()}, true},
		"the source is about to switch over":   {sourceMove{switching: true}, true},
		"the VM has stopped, and with multifd": {sourceMove{stopAt: time.Now(), entry: Entry{Spec: Spec{Channels: 2}}}, true},
	} {
		if got := tt.m.mayStand(); got != tt.cuts {
			t.Errorf("%s: the connections to the source are cut: %v", name, got)
		}
	}
}

// TestGiveUp: what is given up at once ends the connections to the hypervisor, with those
// that come later; else it does not.
func TestGiveUp(t *testing.T) {
	why := errors.New("given up")
	s := newSession(newToken(), new(tunnel.Link), nil, slog.New(slog.DiscardHandler))
	if s.giveUp(why, false); !errors.Is(s.givenUp(), why) || s.local.Err() != nil {
		t.Errorf("given up: %v, the connections to the hypervisor end: %v", s.givenUp(), s.local.Err())
	}
	near, far := net.Pipe()
	defer far.Close()
	stop := context.AfterFunc(s.local, func() { cutOff(near) })
	defer stop()
	s.giveUp(why, true)
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to the hypervisor is still there")
	}
}
