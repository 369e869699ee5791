package hvtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// patience bounds every step of the suite: a real QEMU under TCG on a loaded
// machine needs a second or two for a move.
const patience = 60 * time.Second

// newToken makes a fencing token, 32 hex digits.
func newToken() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// An eventLog gathers what a Source or Sink tells.
type eventLog struct {
	name string
	done chan struct{} // closed after EventClosed

	mu     sync.Mutex
	events []gateway.Event
	more   chan struct{} // closed and renewed by each event
}

func logEvents(name string, events <-chan gateway.Event) *eventLog {
	l := &eventLog{name: name, done: make(chan struct{}), more: make(chan struct{})}
	go func() { // ends with the channel, which the test closes
		defer close(l.done)
		for ev := range events {
			l.mu.Lock()
			l.events = append(l.events, ev)
			close(l.more)
			l.more = make(chan struct{})
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *eventLog) all() ([]gateway.Event, chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events), l.more
}

// index returns where the first such event is, or -1. Text "" matches all.
func index(events []gateway.Event, kind gateway.EventKind, text string) int {
	return slices.IndexFunc(events, func(ev gateway.Event) bool {
		return ev.Kind == kind && (text == "" || ev.Text == text)
	})
}

// await waits for an event.
func (l *eventLog) await(t *testing.T, kind gateway.EventKind, text string) {
	t.Helper()
	timeout := time.After(patience)
	for {
		events, more := l.all()
		if index(events, kind, text) >= 0 {
			return
		}
		if kind != gateway.EventClosed && index(events, gateway.EventClosed, "") >= 0 {
			t.Fatalf("%s: no event %s %s before the end; have %v", l.name, kind, text, events)
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("%s: no event %s %s; have %v", l.name, kind, text, events)
		}
	}
}

// inOrder checks that the events came, in this order.
func (l *eventLog) inOrder(t *testing.T, want ...gateway.Event) {
	t.Helper()
	events, _ := l.all()
	at := -1
	for _, w := range want {
		i := index(events, w.Kind, w.Text)
		if i < 0 {
			t.Errorf("%s: no event %s %s in %v", l.name, w.Kind, w.Text, events)
			return
		}
		if i < at {
			t.Errorf("%s: event %s %s came too early, in %v", l.name, w.Kind, w.Text, events)
		}
		if events[i].At.IsZero() {
			t.Errorf("%s: event %s %s has no time", l.name, w.Kind, w.Text)
		}
		at = i
	}
}

// A move is one move of the suite, step by step.
type move struct {
	t    *testing.T
	ctx  context.Context
	spec gateway.Spec
	src  gateway.Source
	sink gateway.Sink
	leg  *relay

	srcLog, sinkLog *eventLog
}

// newMove opens the source and prepares the sink.
func newMove(t *testing.T, from, to gateway.Host, vm string, channels int) *move {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	m := &move{t: t, ctx: ctx}
	var err error
	if m.src, err = from.Source(ctx, vm); err != nil {
		t.Fatalf("opening %s at %s: %v", vm, from.Name(), err)
	}
	t.Cleanup(func() { m.src.Close() })
	m.srcLog = logEvents("source "+from.Name(), m.src.Events())
	if m.spec, err = m.src.Spec(ctx); err != nil {
		t.Fatalf("asking for the spec: %v", err)
	}
	m.spec.Token, m.spec.Channels = newToken(), channels
	if m.sink, err = to.Prepare(ctx, m.spec); err != nil {
		t.Fatalf("preparing %s at %s: %v", vm, to.Name(), err)
	}
	m.sinkLog = logEvents("sink "+to.Name(), m.sink.Events())
	t.Cleanup(func() { m.sink.Close() })
	m.leg = startRelay(t, m.sink)
	return m
}

func (m *move) params() gateway.MoveParams {
	return gateway.MoveParams{Downtime: 300 * time.Millisecond, Channels: m.spec.Channels}
}

func (m *move) start() {
	m.t.Helper()
	m.leg.run()
	if err := m.src.Start(m.ctx, m.leg.uri, m.params()); err != nil {
		m.t.Fatalf("starting: %v", err)
	}
}

// load goes on until the destination has all and both copies are stopped.
func (m *move) load() {
	m.t.Helper()
	m.srcLog.await(m.t, gateway.EventStatus, "pre-switchover")
	m.want(m.src, gateway.Paused)
	if err := m.src.Continue(m.ctx); err != nil {
		m.t.Fatalf("continuing: %v", err)
	}
	m.srcLog.await(m.t, gateway.EventStatus, "completed")
	m.want(m.src, gateway.Moved)
	m.sinkLog.await(m.t, gateway.EventStatus, "completed")
	m.want(m.sink, gateway.Paused)
}

// commit resumes the destination and ends the source.
func (m *move) commit() {
	m.t.Helper()
	if err := m.sink.Resume(m.ctx); err != nil {
		m.t.Fatalf("resuming at the destination: %v", err)
	}
	m.sinkLog.await(m.t, gateway.EventResume, "")
	m.want(m.sink, gateway.Running)
	if err := m.sink.Announce(m.ctx); err != nil {
		m.t.Errorf("announcing: %v", err)
	}
	if err := m.src.Release(m.ctx); err != nil {
		m.t.Errorf("releasing the source: %v", err)
	}
	m.want(m.src, gateway.Gone)
	m.close()
}

// close lets go of both ends.
func (m *move) close() {
	m.t.Helper()
	m.leg.close()
	for _, c := range []interface{ Close() error }{m.src, m.sink} {
		if err := c.Close(); err != nil {
			m.t.Errorf("closing: %v", err)
		}
	}
	m.srcLog.await(m.t, gateway.EventClosed, "")
	m.sinkLog.await(m.t, gateway.EventClosed, "")
	<-m.srcLog.done
	<-m.sinkLog.done
}

// stateful is what Source and Sink have in common.
type stateful interface {
	State(ctx context.Context) (gateway.RunState, error)
}

// want waits until the state is as it should be: QEMU tells of a status a
// moment before it has changed all that belongs to it.
func (m *move) want(s stateful, want gateway.RunState) {
	m.t.Helper()
	wantState(m.ctx, m.t, s, want)
}

func wantState(ctx context.Context, t *testing.T, s stateful, want gateway.RunState) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience / 4)
	for {
		got, err := s.State(ctx)
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("state %q (error %v), want %q", got, err, want)
		}
		<-tick.C
	}
}
