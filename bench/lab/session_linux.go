package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// SessionReport is what a TCPSession has seen.
type SessionReport struct {
	Alive   bool   `json:"alive"`         // it has not broken; look at Longest for one that hangs
	Why     string `json:"why,omitempty"` // why it is not
	Ticks   uint64 `json:"ticks"`         // of the guest, none missing
	Sent    uint64 `json:"sent"`          // echoes asked for
	Echoes  uint64 `json:"echoes"`        // echoes returned, none missing
	Beat    uint64 `json:"heartbeat"`     // the guest's, in the last record; it never went back
	Longest Gap    `json:"longest"`       // longest time without a record
	Gaps    []Gap  `json:"gaps"`          // all from 50 ms
}

// A TCPSession is one TCP connection to a guest that carries its ticks and our
// echoes. It has to survive moves.
type TCPSession struct {
	conn net.Conn

	mu   sync.Mutex // guards what follows
	rep  SessionReport
	gaps gaps
	end  time.Time // of the session; zero until then
}

// Session connects to the guest's session port from the site.
func (s *Site) Session(ctx context.Context, ip string) (*TCPSession, error) {
	c, err := s.Dial(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(control.SessionPort)))
	if err != nil {
		return nil, fmt.Errorf("opening a session: %w", err)
	}
	t := &TCPSession{conn: c}
	t.rep.Alive = true
	t.gaps.begin(time.Now())
	return t, nil
}

// Run uses the session until ctx ends, and then returns nil; or until it
// breaks, and then says how. It is called once.
func (t *TCPSession) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { t.conn.Close() })
	defer stop()
	sent := make(chan error, 1) // the end of send
	sending, cancel := context.WithCancel(ctx)
	go func() { sent <- t.send(sending) }()
	err := t.receive()
	t.conn.Close()
	cancel()
	if ctx.Err() != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF)) {
		err = nil
	}
	if late := <-sent; err == nil && ctx.Err() == nil {
		err = late
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = time.Now()
	if err != nil {
		err = fmt.Errorf("session with the guest: %w", err)
		t.rep.Alive, t.rep.Why = false, err.Error()
	}
	return err
}

func (t *TCPSession) send(ctx context.Context) error {
	tick := time.NewTicker(control.Beat * time.Millisecond)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := t.conn.Write(control.Record{Kind: control.Echo, Seq: seq}.Append(nil)); err != nil {
			return err
		}
		t.mu.Lock()
		t.rep.Sent = seq
		t.mu.Unlock()
	}
}

func (t *TCPSession) receive() error {
	in := bufio.NewReader(t.conn)
	for {
		r, err := control.ReadRecord(in)
		if err != nil {
			return err
		}
		if err := t.take(r, time.Now()); err != nil {
			return err
		}
	}
}

// take checks that a record is the next of its kind, and that the guest has
// not gone back in time.
func (t *TCPSession) take(r control.Record, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := &t.rep.Ticks
	if r.Kind == control.Echo {
		last = &t.rep.Echoes
	}
	switch {
	case r.Seq != *last+1:
		return fmt.Errorf("record %d of kind %d comes after %d", r.Seq, r.Kind, *last)
	case r.Beat < t.rep.Beat:
		return fmt.Errorf("the guest's heartbeat went back from %d to %d", t.rep.Beat, r.Beat)
	}
	*last, t.rep.Beat = r.Seq, r.Beat
	t.gaps.arrived(now)
	return nil
}

// Report tells what has been seen so far.
func (t *TCPSession) Report() SessionReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rep
	r.Longest, r.Gaps = t.gaps.longestBy(t.end), append([]Gap(nil), t.gaps.list...)
	return r
}
