package qmp

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func event(name string, n int) string {
	return fmt.Sprintf(`{"timestamp": {"seconds": %d, "microseconds": 500000}, "event": %q, "data": {"pass": %d}}`, n, name, n)
}

// barrier returns when the client has taken everything that s has said.
func barrier(t *testing.T, c *Client, s *server) {
	t.Helper()
	go func() { s.say(fmt.Sprintf(`{"return": {}, "id": %d}`, s.hear().ID)) }()
	if err := c.Execute(t.Context(), "query-nothing", nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestEvents(t *testing.T) {
	c, s := serve(t)
	all, stops := c.Subscribe(), c.Subscribe("STOP")
	s.say(event("RESUME", 1) + event("STOP", 2) + event("MIGRATION_PASS", 3) + event("MIGRATION_PASS", 4) + event("STOP", 5))
	barrier(t, c, s)
	for _, want := range []struct {
		sub  *Subscription
		name string
		at   int64
	}{{all, "RESUME", 1}, {all, "STOP", 2}, {all, "MIGRATION_PASS", 4}, {all, "STOP", 5}, {stops, "STOP", 2}, {stops, "STOP", 5}} {
		ev, err := want.sub.Next(t.Context())
		if err != nil || ev.Name != want.name || !ev.Time.Equal(time.Unix(want.at, 5e8)) || ev.Read.IsZero() {
			t.Errorf("got %+v, error %v, want %s of %d", ev, err, want.name, want.at)
		}
	}
	stops.Close()
	if _, err := stops.Next(t.Context()); err == nil {
		t.Error("a closed subscription goes on")
	}
}

func TestEventsOverflow(t *testing.T) {
	c, s := serve(t)
	sub, other := c.Subscribe(), c.Subscribe("SHUTDOWN")
	for i := range maxQueue + 1 {
		s.say(event("STOP", i))
	}
	s.say(event("SHUTDOWN", 0))
	barrier(t, c, s)
	for i := range maxQueue {
		if ev, err := sub.Next(t.Context()); err != nil || ev.Time.Unix() != int64(i) {
			t.Fatalf("event %d: %+v, error %v", i, ev, err)
		}
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, ErrOverflow) {
		t.Errorf("error %v", err)
	}
	if ev, err := other.Next(t.Context()); err != nil || ev.Name != "SHUTDOWN" {
		t.Errorf("another subscription: %+v, error %v", ev, err)
	}
}
