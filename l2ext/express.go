package l2ext

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// Segments of mode secure-fast have no VXLAN device. Their overlay port is a TAP
// that gives frames as the kernel has them (Port); what is judged and chosen is the
// same, and what is sent are datagrams of package fast. This file is about whether
// they arrive, express_keys.go about their keys; express_out.go and express_in.go
// carry.
//
// Each site sends each other one a Hello every second, of full length, which says as
// well what was heard of the other; so both know whether both ways work. While one
// does not, the segment has a Problem. Nothing is sent another way: without a key
// frames are dropped, and with one they may be lost.

const (
	helloEvery = time.Second
	// helloPause is between two that the peer has asked for: each is of full length, and
	// goes to where the peer is, or seems to be.
	helloPause = 100 * time.Millisecond
	// deafAfter is how long a way may be silent until it is said not to work:
	// five hellos, and a moment. A busy machine or a bad path loses some.
	deafAfter = 5500 * time.Millisecond
)

// express is what is known of the datagrams to and from a peer.
type express struct {
	out   atomic.Pointer[outKey] // nil: the peer has not said how to seal, or the link is down
	size  atomic.Int32           // of datagrams, bytes
	hello chan struct{}          // 1: a hello is due now

	heard atomic.Int64  // when one opened last, in Unix nanoseconds
	acked atomic.Int64  // when the peer said last that it has opened more
	told  atomic.Uint64 // what it said

	// Owned by the loop.
	in     *inKey     // the newest; nil while there is no secret
	since  time.Time  // that the peer could be heard
	agreed *agreement // of the site; outlives the peer

	aside *aside // with a lock of its own
}

// firstExpress finds the segment of the mode with the lowest VNI of all, as "", and
// of those that each site shares.
func firstExpress(segments map[uint32]*segment) map[string]*segment {
	first := make(map[string]*segment)
	for _, seg := range segments {
		if seg.Mode != SecureFast {
			continue
		}
		for _, site := range append([]string{""}, seg.Sites...) {
			if f := first[site]; f == nil || seg.VNI < f.VNI {
				first[site] = seg
			}
		}
	}
	return first
}

// expressSegments are those of the mode that a site shares, and is not known to
// carry in another, in the order of their VNIs.
func (m *Manager) expressSegments(site string) (shared []*segment) {
	for _, seg := range m.segments() {
		if seg.Mode == SecureFast && seg.endpoint[site] != 0 && !seg.ways.refuses(site) {
			shared = append(shared, seg)
		}
	}
	slices.SortFunc(shared, func(a, b *segment) int { return cmp.Compare(a.VNI, b.VNI) })
	return shared
}

// lookAfterExpress sees to keys, and to whether datagrams arrive.
func (m *Manager) lookAfterExpress(now time.Time) {
	m.mu.Lock()
	peers := slices.Collect(maps.Values(m.peers))
	m.mu.Unlock()
	lanes := make(map[string]Lane)
	for _, p := range peers {
		if shared := m.expressSegments(p.site); len(shared) > 0 && m.cfg.Express != nil {
			problem := m.lookAfterPeer(now, shared, p)
			lanes[p.site] = p.express.lane(now, problem)
		} else {
			m.forgetKeys(p)
		}
	}
	for _, seg := range m.segments() {
		if seg.Mode == SecureFast {
			m.setLanes(seg, lanes)
			m.suitOldKernels(seg)
		}
	}
}

// lookAfterPeer returns why datagrams do not get to and from a peer with which
// segments are shared; "" if they do.
func (m *Manager) lookAfterPeer(now time.Time, shared []*segment, p *peer) (why string) {
	e := &p.express
	root, err := m.rootWith(p.site)
	if err != nil {
		m.forgetKeys(p)
		return err.Error()
	}
	e.size.Store(int32(m.cfg.Express.Size(p.site)))
	heard := p.heardWith(e.in)
	if e.in == nil || e.in.root != root || heard > fast.Tired || now.Sub(e.in.made) >= rekeyEvery {
		if err := m.newEpoch(now, p, root); err != nil {
			return err.Error()
		}
	}
	if e.in.due(now, heard) && m.offerKey(shared, p) {
		e.in.told = now
	}
	if err := m.followOffer(p, root); err != nil {
		return err.Error()
	}
	return e.deaf(now)
}

// deaf tells which way nothing has come for too long.
func (e *express) deaf(now time.Time) string {
	heard, acked := now.Sub(time.Unix(0, e.heard.Load())), now.Sub(time.Unix(0, e.acked.Load()))
	switch {
	case now.Sub(e.since) < deafAfter:
		return "" // it has just begun
	case e.out.Load() == nil:
		return "it has not said that it has a segment in mode secure-fast"
	case heard > deafAfter:
		return fmt.Sprintf("no datagram came from it for %v", min(heard, now.Sub(e.since)).Round(time.Second))
	case acked > deafAfter:
		return fmt.Sprintf("it hears none of our datagrams of %d bytes", e.size.Load())
	}
	return ""
}

// lane is what an operator sees.
func (e *express) lane(now time.Time, problem string) Lane {
	l := Lane{Works: e.works(now), Problem: problem, Datagram: int(e.size.Load())}
	if k := e.out.Load(); k != nil {
		l.Epoch = k.epoch
	}
	return l
}

// works tells whether the peer gets what is sent.
func (e *express) works(now time.Time) bool {
	return e.out.Load() != nil && now.UnixNano()-e.acked.Load() <= int64(deafAfter)
}

// setLanes notes how a segment's frames get to its sites.
func (m *Manager) setLanes(seg *segment, lanes map[string]Lane) {
	own := make(map[string]Lane)
	for _, site := range seg.Sites {
		switch {
		case m.cfg.Express == nil:
			own[site] = Lane{Problem: "this gateway cannot carry the mode"}
		case !seg.ways.refuses(site): // else it has no lane of this segment, whatever the others have
			own[site] = lanes[site]
		}
	}
	seg.mu.Lock()
	was := seg.laneProblem()
	seg.lanes = own
	is := seg.laneProblem()
	seg.mu.Unlock()
	if (was == "") != (is == "") {
		m.log.Warn("mode secure-fast", "segment", seg.Name, "works", is == "", "problem", is)
	}
}

// laneProblem is why frames do not get to a site. It needs seg.mu.
func (s *segment) laneProblem() string {
	for _, site := range s.Sites {
		if l := s.lanes[site]; l.Problem != "" {
			return fmt.Sprintf("secure-fast to site %s does not work, and nothing is sent another way: %s", site, l.Problem)
		}
	}
	return ""
}

// suitOldKernels has the kernel cut UDP before a segment's port when a site cannot
// take it uncut.
func (m *Manager) suitOldKernels(seg *segment) {
	port := seg.port()
	if port == nil || seg.tcpOnly == port {
		return
	}
	for _, site := range seg.Sites {
		p := m.peer(site)
		if p == nil || p.express.agreed.offer.Kind != announce.Express || p.express.agreed.offer.UDP {
			continue
		}
		if err := port.OnlyTCP(); err != nil {
			m.log.Warn("UDP segments cannot be switched off; a site's kernel drops them", "segment", seg.Name, "peer", site, "err", err)
		}
		seg.tcpOnly = port
		return
	}
}

// helloNow has a hello sent at once.
func (e *express) helloNow() {
	select {
	case e.hello <- struct{}{}:
	default:
	}
}

// sendHellos sends them until ctx ends.
func (m *Manager) sendHellos(ctx context.Context, p *peer) {
	e := &p.express
	out := newExpressOut(m)
	last := time.Now().Add(-helloPause)
	timer := time.NewTimer(helloEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.hello:
			if pause := helloPause - time.Since(last); pause > 0 {
				timer.Reset(pause)
				continue
			}
		case <-timer.C:
		}
		last = time.Now()
		timer.Reset(helloEvery)
		p.rx.Lock()
		heard := uint64(0)
		if k := m.newestKey(p); k != nil {
			heard = k.opener.Heard()
		}
		p.rx.Unlock()
		out.hello(p, heard)
	}
}

// newestKey is the newest with which something has come from a peer.
func (m *Manager) newestKey(p *peer) (newest *inKey) {
	for _, k := range *m.keys.Load() {
		if k.peer == p && k.opener.Heard() > 0 && (newest == nil || newest.made.Before(k.made)) {
			newest = k
		}
	}
	return newest
}
