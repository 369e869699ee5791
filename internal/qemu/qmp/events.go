package qmp

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// An Event is something that QEMU tells unasked.
type Event struct {
	Name string          // such as "STOP"
	Data json.RawMessage // may be nil
	Time time.Time       // by QEMU's clock
	Read time.Time       // when it was read, with a monotonic clock
}

// maxQueue is the most events that wait for a subscriber. A move has some
// dozens; the rest is room for a guest that, say, toggles its clock.
const maxQueue = 1024

// eventPass is the one event that may be coalesced: it carries a counter.
const eventPass = "MIGRATION_PASS"

// A Subscription is one reader's queue of events.
type Subscription struct {
	client *Client
	names  []string // empty: all

	mu     sync.Mutex
	queue  []Event
	err    error         // why no more events will come
	signal chan struct{} // capacity 1: something has changed since it was read
}

// Subscribe queues the events of the given names, or all, from now on.
func (c *Client) Subscribe(names ...string) *Subscription {
	s := &Subscription{client: c, names: names, signal: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		s.end(c.err)
		return s
	}
	c.subs[s] = struct{}{}
	return s
}

// Next waits for the next event. After the last one it returns why there are
// no more: ErrOverflow, or what ended the connection.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		ev, ok, err := s.take()
		if ok || err != nil {
			return ev, err
		}
		select {
		case <-s.signal:
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

func (s *Subscription) take() (Event, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return Event{}, false, s.err
	}
	ev := s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1)
	return ev, true, nil
}

// Close ends the subscription. Next returns what is queued, then errClosed.
func (s *Subscription) Close() {
	s.client.mu.Lock()
	delete(s.client.subs, s)
	s.client.mu.Unlock()
	s.end(errClosed)
}

// push takes an event; it never blocks.
func (s *Subscription) push(ev Event) {
	if len(s.names) > 0 && !slices.Contains(s.names, ev.Name) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.queue)
	switch {
	case s.err != nil:
		return
	case n > 0 && ev.Name == eventPass && s.queue[n-1].Name == eventPass:
		s.queue[n-1] = ev
	case n >= maxQueue:
		s.err = ErrOverflow
	default:
		s.queue = append(s.queue, ev)
	}
	s.wake()
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.wake()
}

// wake tells Next. The caller holds mu.
func (s *Subscription) wake() {
	select {
	case s.signal <- struct{}{}:
	default: // told already
	}
}
