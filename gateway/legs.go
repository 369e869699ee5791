package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/tunnel"
)

// Formats makes the scanners of the streams that this gateway understands.
type Formats struct {
	// Recognise tells from the first bytes of a connection what it is. With
	// enough false it wants more of them; it never wants more than 64. scan is then
	// nil, or for what is likely if no more come.
	Recognise func(first []byte) (scan page.Scanner, enough bool)

	// Opaque makes the scanner of a stream that is not looked into.
	Opaque func() page.Scanner

	// Pack returns a writer to w, of a stream that a page.Unpacker has unpacked
	// at the other end. Close writes what it has held back, and leaves w open.
	Pack func(w io.Writer) io.WriteCloser
}

// Roles of a leg: page.Facts.Format, and one for a connection whose source
// says nothing before it hears something.
const (
	roleMain    = "qemu"
	roleRecover = "qemu-recover" // main, of a postcopy that goes on after a break
	roleMultifd = "qemu-multifd"
	rolePreempt = "qemu-preempt"
	roleSilent  = "silent"
)

// formatDisk is page.Facts.Format of what an NBD client says.
const formatDisk = "nbd"

// quiet is how long a new connection may say nothing before we take it for
// one whose other end speaks first: NBD, or the preempt channel of a
// migration (hypervisor-wire.md, 5.3 C).
const quiet = 200 * time.Millisecond

// needed is how many bytes must be in hand before a connection of this role
// is opened at the destination: QEMU blocks in its main loop until it has read
// them (hypervisor-wire.md, section 2).
func needed(role string) int {
	switch role {
	case roleSilent, rolePreempt:
		return 0
	case roleMultifd:
		return 64 // the whole init packet
	case roleMain:
		return 8 // magic and version
	default:
		return 1
	}
}

// runningLegs are the legs of a move, and what keeps their backlog bounded.
type runningLegs struct {
	failed chan error // gets the first failure, if there is one; holds it until it is asked for
	stop   context.CancelCauseFunc
	ended  chan struct{} // closed when all of them have ended
	ln     net.Listener
}

// start serves the source's connections until they are stopped or finished.
func (s *session) start(ctx context.Context, ln net.Listener, formats Formats) *runningLegs {
	ctx, stop := context.WithCancelCause(ctx)
	r := &runningLegs{failed: make(chan error, 1), stop: stop, ended: make(chan struct{}), ln: ln}
	go func() {
		defer close(r.ended)
		defer stop(nil)
		paced := make(chan struct{})
		go func() {
			defer close(paced)
			s.pace(ctx)
		}()
		if err := s.serveLegs(ctx, ln, formats); err != nil {
			r.failed <- err
		}
		stop(nil)
		<-paced
	}()
	return r
}

// finish accepts no more connections and waits for those that are open; after
// grace it stops them, and says why.
func (r *runningLegs) finish(grace time.Duration, why error) {
	r.ln.Close()
	select {
	case <-r.ended:
	case <-time.After(grace):
		r.stop(why)
		<-r.ended
	}
}

// drain waits for the legs to end, and stops them when nothing has arrived for as long as
// idle, or it has taken long enough.
func (r *runningLegs) drain(arrived func() int64, idle, most time.Duration, why error) {
	tick := time.NewTicker(idle)
	defer tick.Stop()
	late := time.After(most)
	for last := arrived(); ; {
		select {
		case <-tick.C:
			if now := arrived(); now != last {
				last = now
				continue
			}
		case <-late:
		case <-r.ended:
			return
		}
		r.stop(why)
		return
	}
}

// serveLegs is step 1: it accepts the source's connections until ln is closed,
// and carries each to the peer. When it returns, all of them have ended. The
// first that fails ends all, unless the move was given up: then the others may still
// bring something.
func (s *session) serveLegs(ctx context.Context, ln net.Listener, formats Formats) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	g.Go(func() error {
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return context.Cause(ctx)
			}
			if err != nil {
				return fmt.Errorf("accepting from the source: %w", err)
			}
			g.Go(func() error {
				err := s.serveLeg(ctx, conn, legRequest{formats: formats})
				if why := s.givenUp(); why != nil {
					s.log.Debug("a connection of a move that was given up has ended", "err", err)
					return nil
				}
				return err
			})
		}
	})
	return g.Wait()
}

// legRequest says how to treat a connection of the source.
type legRequest struct {
	formats Formats
	target  string // of a forward: where the peer shall dial
	opaque  bool   // do not look into the stream
	waits   bool   // the source speaks first: a silent connection is not taken for another protocol

	// another gives the session of a further migration through a forward.
	another func(than *session) *session
}

// serveLeg finds out what conn is and carries it. It takes conn.
func (s *session) serveLeg(ctx context.Context, conn net.Conn, req legRequest) error {
	stop := context.AfterFunc(s.local, func() { hangUp(conn) })
	defer stop()
	head, scan, err := s.recognise(ctx, conn, req)
	if err != nil || scan == nil {
		return errors.Join(err, conn.Close())
	}
	role := scan.Facts().Format
	if len(head) == 0 {
		role = roleSilent
	}
	if role == roleMain && req.another != nil && !s.claimMain() { // the one before is not quite through
		s = req.another(s)
	}
	state, err := s.addLeg(-1, role)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer s.dropLeg(state)
	var from io.Reader = conn
	unpacker, unpacks := scan.(page.Unpacker)
	if unpacks {
		from = unpacker.Unpack(io.MultiReader(bytes.NewReader(head), conn))
		head = nil
	}
	h := legHeader{Version: protoVersion, Session: s.token, Index: state.index, Role: role, Target: req.target, Tenant: s.tenant, Unpacked: unpacks}
	ch, err := s.link.Open(ctx, tunnel.Spec{Kind: kindLeg, Header: encodeJSON(h), Class: tunnel.Bulk, Flow: s.flow})
	if err != nil {
		return errors.Join(fmt.Errorf("opening a channel to %s: %w", s.link.Site(), err), conn.Close())
	}
	if l, ok := scan.(*late); ok && s.disk != nil {
		l.disk = func() { ch.SetFlow(s.disk) }
	}
	enc := s.store.NewEncoder(dedup.EncoderConfig{PeerReady: req.target == ""}) // the peer of a move keeps, see newSinkMove
	s.attach(state, ch, enc)
	if role == roleMain || role == roleRecover {
		s.opened()
	}
	s.logical.Add(int64(len(head)))
	o := &outbound{s: s, state: state, conn: conn, from: from, head: head, scan: scan, ch: ch, enc: enc, heard: make(chan struct{}, 1)}
	if err := o.run(ctx); err != nil {
		return fmt.Errorf("%s connection %d: %w", role, state.index, err)
	}
	return nil
}

// recognise reads the first bytes of a connection, which tell what it is. scan
// is nil when the source closed without a word: a probe, of which the
// destination must hear nothing.
func (s *session) recognise(ctx context.Context, conn net.Conn, req legRequest) (head []byte, scan page.Scanner, err error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 64) // the longest first word that tells something
	for n := 0; ; {
		if err := conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			return nil, nil, err
		}
		m, err := conn.Read(buf[n:])
		n += m
		scan, enough := req.formats.Opaque(), true
		if n > 0 && !req.opaque {
			scan, enough = req.formats.Recognise(buf[:n])
		}
		switch {
		case n > 0 && (enough || n == len(buf)):
			return buf[:n], scan, nil
		case errors.Is(err, io.EOF) && n == 0:
			return nil, nil, nil
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
			if scan == nil { // too little was said to tell
				scan = req.formats.Opaque()
			}
			return buf[:n], scan, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.maySpeakSecond(req) {
				if !req.opaque {
					scan = &late{formats: req.formats}
				}
				return nil, scan, nil
			}
		case err != nil:
			return nil, nil, fmt.Errorf("reading the first bytes of the source: %w", err)
		}
	}
}

// maySpeakSecond tells whether a silent connection can be opened at the
// destination. In a move that is so only once the main connection is open: a
// source from QEMU 9.0 on connects its multifd channels before it says a word
// on the main one.
func (s *session) maySpeakSecond(req legRequest) bool {
	if req.target != "" && !req.waits {
		return true
	}
	select {
	case <-s.mainOpen:
		return true
	default:
		return false
	}
}

// farEnd is where a channel of the peer comes out.
type farEnd struct {
	dial func(context.Context) (net.Conn, error)
	pack func(io.Writer) io.WriteCloser // as in Formats
}

// takeLeg is the far end of serveLeg: it replays a channel that the peer has
// opened into a connection that end dials.
func (s *session) takeLeg(ctx context.Context, ch *tunnel.Channel, h legHeader, end farEnd) error {
	if h.Tenant != s.tenant { // its batches would refer to another store
		err := fmt.Errorf("connection of tenant %q in a session of tenant %q: %w", h.Tenant, s.tenant, ErrInvalid)
		ch.Abort(err.Error())
		return err
	}
	state, err := s.addLeg(h.Index, h.Role)
	if err != nil {
		ch.Abort(err.Error())
		return err
	}
	defer s.dropLeg(state)
	s.attach(state, ch, nil)
	waits := h.Role == roleMultifd || h.Role == rolePreempt || h.Role == roleSilent && h.Target == ""
	in := &inbound{
		s: s, state: state, ch: ch, dec: s.store.NewDecoder(dedup.DecoderConfig{Fetch: fetcher(ctx, s.link, s.tenant, s.log)}),
		dial: end.dial, need: needed(h.Role), main: !waits,
	}
	if h.Target != "" {
		in.patience = mainPatience
	}
	if h.Unpacked {
		in.pack = end.pack // a gateway has one, see Config
	}
	if err := in.run(ctx); err != nil {
		return fmt.Errorf("%s connection %d: %w", h.Role, h.Index, err)
	}
	return nil
}
