package l2ext

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/stream"
)

// Streaming says whether the TCP connections of a segment's hosts cross by
// streams: what the line loses is then sent again by the gateways, and the hosts,
// which take a loss for congestion, do not see it. The price is that what follows
// it on its stream waits for a round trip.
type Streaming string

// Whether they do.
const (
	StreamsAuto Streaming = "auto" // the default: while the line loses packets
	StreamsOn   Streaming = "on"
	StreamsOff  Streaming = "off" // frames of this site go as datagrams; those of others may still come by streams
)

// Streams are reliable ways to other sites, beside the datagrams of a Carrier. All
// methods are safe for concurrent use.
type Streams interface {
	// OpenStream opens a stream to a site. An error means that there is none now.
	OpenStream(ctx context.Context, site string) (Stream, error)

	// Line tells what has become of what was sent to a site.
	Line(site string) Line
}

// A Stream carries bytes to another site, in order. Nothing of it outlives the
// connection that it is on.
type Stream interface {
	io.Writer
	SetWriteDeadline(t time.Time) error

	// Reset gives the stream up, so that what has not arrived never does. It may
	// be called at any time, and more than once.
	Reset()
}

// maxReaders bounds the streams that a site has to us: its lanes, as many that
// have been given up and whose end is still to come, and room for a newer version.
const maxReaders = 128

// errTooMany says that a site opens more streams than it has use for.
var errTooMany = errors.New("l2ext: too many streams")

// stream sends a frame of a TCP connection by a stream, if that is how it crosses.
// It may lower the segment size in a SYN: the connection may go back to datagrams.
func (m *Manager) stream(seg *segment, p *peer, frame []byte, s sending) (taken bool) {
	if p == nil || p.lanes == nil || seg.Policy.Streams == StreamsOff {
		return false
	}
	f, ok := ether.FlowOf(s.header, frame)
	if !ok {
		return false
	}
	if f.Open && ether.ClampMSS(s.header, frame, m.cfg.Carrier.MaxDatagram(p.site)-frag.HeaderLen) {
		seg.counts.add(Clamped, 1)
	}
	return p.lanes.put(time.Now(), seg, &f, frame, s.redirected)
}

// ServeStream takes the frames of a stream that a site has opened, until it ends.
// What is wrong with the stream is returned, and the stream is then to be reset.
func (m *Manager) ServeStream(site string, r io.Reader) error {
	p := m.peer(site)
	if p == nil {
		return fmt.Errorf("stream from %s: %w", site, errStranger)
	}
	defer p.readers.Add(-1)
	if p.readers.Add(1) > maxReaders {
		return fmt.Errorf("stream from %s: %w", site, errTooMany)
	}
	for in := stream.NewReader(r); ; {
		h, frame, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stream from %s: %w", site, err)
		}
		now := time.Now()
		p := m.peer(site)
		if p == nil {
			return fmt.Errorf("stream from %s: %w", site, errStranger)
		}
		seg, err := m.origin(site, h.VNI, Secure)
		if err != nil {
			m.log.Debug("frame of a stream", "peer", site, "err", err)
			continue
		}
		p.rx.Lock()
		inward{m: m, seg: seg, from: site, peer: p, redirected: h.Redirected}.frame(now, parcel{frame: frame})
		p.rx.Unlock()
	}
}

// lookAtLines has each peer's flows follow what its line does.
func (m *Manager) lookAtLines(now time.Time) {
	m.mu.Lock()
	peers := make([]*peer, 0, len(m.peers))
	for _, p := range m.peers {
		peers = append(peers, p)
	}
	m.mu.Unlock()
	for _, p := range peers {
		if p.lanes == nil {
			continue
		}
		line := m.cfg.Streams.Line(p.site)
		p.mu.Lock()
		was := p.line.lossy
		p.line.look(now, line)
		lossy, why := p.line.lossy, p.line.why()
		p.mu.Unlock()
		p.lanes.setLine(lossy, line.RTT)
		if was != lossy {
			m.log.Info("TCP connections of guests", "peer", p.site, "streams", lossy, "why", why)
		}
	}
}

// abilities are what this gateway can.
const abilities = announce.AbleStreams | announce.AbleTrips | announce.AbleCables | announce.AbleFrozen

// sendAble tells a site of them.
func (m *Manager) sendAble(seg *segment, site string) {
	if m.cfg.Streams != nil {
		m.enqueue(seg, site, announce.Message{Kind: announce.Able, VNI: seg.VNI, Abilities: abilities})
	}
}

// repeatAble tells it those again that have told it of themselves: others would
// log it each time.
func (m *Manager) repeatAble(seg *segment) {
	for _, site := range seg.Sites {
		if p := m.peer(site); p != nil && p.lanes != nil && p.lanes.isAble() {
			m.sendAble(seg, site)
		}
	}
}

// takeAble: another gateway tells what it can. It may not have heard of us yet.
func (m *Manager) takeAble(seg *segment, from string, msg announce.Message) {
	p := m.peer(from)
	if p == nil || p.lanes == nil {
		return
	}
	p.takesTrips.Store(msg.Abilities&announce.AbleTrips != 0)
	p.takesCables.Store(msg.Abilities&announce.AbleCables != 0)
	p.takesFrozen.Store(msg.Abilities&announce.AbleFrozen != 0)
	if p.lanes.setAble(msg.Abilities&announce.AbleStreams != 0) {
		m.sendAble(seg, from)
	}
}

// StreamView tells how the TCP connections of a segment's hosts cross to a site.
type StreamView struct {
	Site string
	On   bool    // by streams
	Why  string  // they do or do not
	Loss float64 // share of what was sent to the site that was lost of late
}

// streamViews tells it of all sites of a segment; in other modes than Secure no
// frame goes by a stream.
func (m *Manager) streamViews(seg *segment) (all []StreamView) {
	if seg.Mode != Secure {
		return nil
	}
	for _, site := range slices.Sorted(slices.Values(seg.Sites)) {
		p := m.peer(site)
		if p == nil || p.lanes == nil {
			continue
		}
		p.mu.Lock()
		v := StreamView{Site: site, On: p.line.lossy, Why: p.line.why(), Loss: p.line.share()}
		up := p.up
		p.mu.Unlock()
		switch {
		case seg.Policy.Streams == StreamsOff:
			v.On, v.Why = false, "the segment's policy"
		case !up:
			v.On, v.Why = false, "the site cannot be reached"
		case !p.lanes.isAble():
			v.On, v.Why = false, "the other gateway takes none"
		case seg.Policy.Streams == StreamsOn:
			v.On, v.Why = true, "the segment's policy"
		}
		all = append(all, v)
	}
	return all
}
