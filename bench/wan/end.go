package wan

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// endConfig is the first line to a process that is one end of a cell.
type endConfig struct {
	Sends bool   `json:"sends"`
	Peer  Peer   `json:"peer"`
	Addr  string `json:"addr"` // of the receiver, with the port
	Dir   string `json:"dir"`  // identity of the tunnel's gateway
	Rate  int64  `json:"rate"` // bytes per second on the wire, 0 for no cap
	Pings bool   `json:"pings"`
	// Paths of the tunnel, in place of Addr, if there are several.
	Paths []endPath `json:"paths,omitempty"`
}

// endPath is one of several ways to the receiver.
type endPath struct {
	Name   string `json:"name"`
	Source string `json:"source"` // address of the sender
	Addr   string `json:"addr"`   // of the receiver, with the port
	Rate   int64  `json:"rate"`   // bytes per second on the wire, 0 finds it out
}

// endRequest is any further line.
type endRequest struct {
	Op  string        `json:"op"`     // "send", or "report"
	For time.Duration `json:"for_ns"` // send pings for so long
}

// endReply answers each line.
type endReply struct {
	Error   string          `json:"error,omitempty"`
	Samples []sample        `json:"samples,omitempty"` // of a receiver
	Pings   []time.Duration `json:"pings_ns,omitempty"`
	Drops   int64           `json:"drops,omitempty"` // of this end's own
}

// A sample is what has been delivered until a time.
type sample struct {
	At    int64 `json:"at"` // Unix time in nanoseconds
	Bytes int64 `json:"bytes"`
}

// sampleEvery is short against the 0.1 s of t90.
const sampleEvery = 10 * time.Millisecond

// maxEndLine bounds a line in bytes: samples of ten minutes.
const maxEndLine = 4 << 20

// A transport is a peer's way of sending.
type transport interface {
	// serve counts what comes in order, and echoes pings, until ctx ends. It
	// calls ready when it listens.
	serve(ctx context.Context, c endConfig, got *tally, ready func()) error
	// dial makes all connections. Its error ends the cell.
	dial(ctx context.Context, c endConfig) (sender, error)
}

// A tally is what a receiver has counted.
type tally struct {
	atomic.Int64              // bytes
	drops        func() int64 // what this end has dropped; nil: not known. Set before ready is called
}

// A sender has all its connections.
type sender interface {
	// bulk sends all it can until ctx ends.
	bulk(ctx context.Context) error
	// echo is a way for small messages, which come back whole.
	echo(ctx context.Context) (io.ReadWriter, error)
}

func transportOf(p Peer) (transport, error) {
	switch p.Protocol {
	case "tcp":
		return tcp{}, nil
	case "quic":
		return quicStock{}, nil
	case "longhaul":
		return longhaul{}, nil
	}
	return nil, fmt.Errorf("no transport %q", p.Protocol)
}

// ServeEnd is the whole life of a process that is one end of a cell. It
// returns when in ends.
func ServeEnd(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return lines.Err()
	}
	answers := json.NewEncoder(out)
	var c endConfig
	if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
		return fmt.Errorf("reading the config: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	serve, err := begin(ctx, c)
	if err != nil {
		return errors.Join(err, answers.Encode(endReply{Error: err.Error()}))
	}
	err = answers.Encode(endReply{})
	for err == nil && lines.Scan() {
		var q endRequest
		if err = json.Unmarshal(lines.Bytes(), &q); err == nil {
			err = answers.Encode(serve(q))
		}
	}
	return errors.Join(err, lines.Err())
}

// begin makes the end ready. It returns what answers requests.
func begin(ctx context.Context, c endConfig) (func(endRequest) endReply, error) {
	t, err := transportOf(c.Peer)
	if err != nil {
		return nil, err
	}
	if c.Sends {
		return beginSender(ctx, c, t)
	}
	return beginReceiver(ctx, c, t)
}

func beginReceiver(ctx context.Context, c endConfig, t transport) (func(endRequest) endReply, error) {
	var got tally
	ready, failed := make(chan struct{}), make(chan error, 1)
	go func() { failed <- t.serve(ctx, c, &got, sync.OnceFunc(func() { close(ready) })) }()
	select {
	case err := <-failed:
		return nil, fmt.Errorf("receiving: %w", err)
	case <-ready:
	}
	var mu sync.Mutex // guards samples
	var samples []sample
	go func() {
		for range time.Tick(sampleEvery) {
			mu.Lock()
			samples = append(samples, sample{time.Now().UnixNano(), got.Load()})
			mu.Unlock()
		}
	}()
	return func(endRequest) (r endReply) {
		select {
		case err := <-failed:
			r.Error = fmt.Sprint("receiving: ", err)
		default:
		}
		mu.Lock()
		defer mu.Unlock()
		r.Samples = samples
		if got.drops != nil {
			r.Drops = got.drops()
		}
		return r
	}, nil
}

func beginSender(ctx context.Context, c endConfig, t transport) (func(endRequest) endReply, error) {
	s, err := t.dial(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	var p *pinger
	if c.Pings {
		way, err := s.echo(ctx)
		if err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
		p = newPinger(way)
	}
	failed := make(chan error, 2) // bulk and pings
	return func(q endRequest) (r endReply) {
		if d, ok := s.(interface{ drops() int64 }); ok {
			r.Drops = d.drops()
		}
		switch {
		case q.Op == "send":
			go func() { failed <- s.bulk(ctx) }()
			if p != nil {
				go func() { failed <- p.run(q.For) }()
			}
			return r
		case p != nil:
			r.Pings = p.report()
		}
		select {
		case err := <-failed:
			if err != nil {
				r.Error = fmt.Sprint("sending: ", err)
			}
		default:
		}
		return r
	}, nil
}
