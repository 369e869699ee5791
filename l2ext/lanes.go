package l2ext

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/stream"
)

const (
	// laneCount is the streams to a site: a few heavy flows seldom share one
	// (wan-transport.md, section 7: 16 to 64).
	laneCount = 32
	// laneHeld bounds what waits in all lanes to a site, in bytes: 320 ms at 200
	// Mbit/s. A lane may hold as much as is left free: one alone half of it.
	laneHeld = 8 << 20
	// frameCost is added to the length of each frame for what it is kept in.
	frameCost = 64
	// leastWait and mostWait bound how long the oldest frame of a lane may have
	// waited when another comes; between them it is a round trip, which is what a TCP
	// needs to keep a line full. It is dropped then: so its sender learns soonest
	// what the line has. What nothing follows may wait for longer.
	leastWait = 2 * changeHold
	mostWait  = 200 * time.Millisecond
	// streamStall is how long a stream may take nothing until it is given up: what
	// is under way on it is of no use to a TCP any more when it comes later.
	streamStall = time.Second
	// laneBatch is the bytes written at once. While the line takes them, others
	// wait where they can be dropped.
	laneBatch = 16 << 10
	// changeHold is how long the first frames of a flow wait for those that went
	// before as datagrams: the link's queue of 512 is 25 ms at 200 Mbit/s.
	changeHold = 50 * time.Millisecond
	// changeIdle is how long a lane must have been silent for its flows to go back
	// to datagrams: longer than a loss holds up a stream, so that nothing is
	// overtaken.
	changeIdle = time.Second
	// laneRetry is how long flows go as datagrams after a stream has failed.
	laneRetry = time.Second
)

// lanes are the streams to one site. Flows are spread over them, so that a loss
// holds up few. They never make the sender of a frame wait.
type lanes struct {
	open   func(ctx context.Context) (Stream, error)
	seed   maphash.Seed
	wanted chan *lane // laneCount: each is started once

	mu    sync.Mutex    // guards what follows
	able  bool          // the site takes streams, and is up
	lossy bool          // flows whose segment leaves it to us are to use them
	wait  time.Duration // see leastWait
	retry time.Time     // no stream before
	held  int           // cost of what waits
	lanes [laneCount]lane
}

// A lane is one stream, which is opened when it is needed.
type lane struct {
	wake    chan struct{} // 1: a token says that there is work
	started bool
	frames  []laneFrame
	held    int       // cost of frames
	used    time.Time // when a frame of its flows came last, whichever way it went
	flowing bool      // that went into the lane
	begin   time.Time // nothing leaves before
}

// laneFrame is a frame that waits.
type laneFrame struct {
	seg  *segment
	data []byte // with its header
	at   time.Time
}

func newLanes(open func(context.Context) (Stream, error)) *lanes {
	l := &lanes{open: open, seed: maphash.MakeSeed(), wanted: make(chan *lane, laneCount), wait: leastWait}
	for i := range l.lanes {
		l.lanes[i].wake = make(chan struct{}, 1)
	}
	return l
}

// put takes a frame of a flow: it is copied, or dropped and counted. When it is
// not taken, it has to go as a datagram.
func (l *lanes) put(now time.Time, seg *segment, f *ether.Flow, frame []byte, redirected bool) (taken bool) {
	i := (maphash.Bytes(l.seed, f.Key()) + uint64(seg.VNI)) % laneCount
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.able || len(frame) > stream.MaxFrame {
		return false
	}
	n := &l.lanes[i]
	if !l.enters(now, n, seg) {
		n.used = now
		return false
	}
	n.used = now
	l.dropOld(now, n, l.wait)
	if n.held+len(frame)+frameCost > laneHeld-l.held {
		seg.counts.add(DropStream, 1)
		return true
	}
	data := make([]byte, 0, stream.HeaderLen+len(frame))
	data = append(stream.Header{VNI: seg.VNI, Len: len(frame), Redirected: redirected}.Append(data), frame...)
	n.frames = append(n.frames, laneFrame{seg, data, now})
	l.hold(n, len(data)+frameCost)
	if !n.started {
		n.started = true
		l.wanted <- n
	}
	n.poke()
	return true
}

// enters tells whether the next frame of a lane's flows goes into it, so that none
// is overtaken when that changes. It needs l.mu.
func (l *lanes) enters(now time.Time, n *lane, seg *segment) bool {
	wish := seg.Policy.Streams == StreamsOn || l.lossy
	switch {
	case now.Before(l.retry):
		n.flowing = false
	case wish && !n.flowing:
		n.flowing, n.begin = true, n.used.Add(changeHold)
	case !wish && n.flowing && now.Sub(n.used) >= changeIdle:
		n.flowing = false
	}
	return n.flowing
}

// hold notes that a lane holds more, or less. It needs l.mu.
func (l *lanes) hold(n *lane, more int) {
	n.held += more
	l.held += more
}

func (n *lane) poke() {
	select {
	case n.wake <- struct{}{}:
	default: // it will look
	}
}

// setAble tells whether the site takes streams. When it no longer does, it cannot
// be reached, and what waits is dropped. It tells whether that is new.
func (l *lanes) setAble(able bool) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.able != able
	l.able, l.retry = able, time.Time{}
	if able {
		return changed
	}
	for i := range l.lanes {
		n := &l.lanes[i]
		for _, f := range n.frames {
			f.seg.counts.add(DropPeerDown, 1)
		}
		l.hold(n, -n.held)
		n.frames, n.flowing = nil, false
		n.poke() // it gives its stream up
	}
	return changed
}

func (l *lanes) isAble() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.able
}

// setLine tells how the line does.
func (l *lanes) setLine(lossy bool, rtt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lossy, l.wait = lossy, min(max(rtt, leastWait), mostWait)
}

// run serves lanes as they are needed, until ctx ends.
func (l *lanes) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-l.wanted:
			wg.Go(func() { l.serve(ctx, n) })
		}
	}
}

// serve writes what waits in a lane to its stream. A stream that takes nothing for
// streamStall is given up with all that is under way on it.
func (l *lanes) serve(ctx context.Context, n *lane) {
	var s Stream
	drop := func() {
		if s != nil {
			s.Reset()
			s = nil
		}
	}
	defer drop()
	var buf []byte
	for {
		frames, hold, able := l.take(time.Now(), n)
		if !able {
			drop()
		}
		if len(frames) == 0 {
			if !n.rest(ctx, hold) {
				return
			}
			continue
		}
		buf = buf[:0]
		if s == nil {
			buf = stream.AppendBegin(buf)
		}
		for _, f := range frames {
			buf = append(buf, f.data...)
		}
		var err error
		if s, err = l.write(ctx, s, buf); err != nil {
			drop()
			l.fail()
		}
		count(frames, err)
	}
}

// rest waits for a token, and no longer than hold if that is not 0. It tells
// whether the lane goes on.
func (n *lane) rest(ctx context.Context, hold time.Duration) bool {
	var due <-chan time.Time
	if hold > 0 {
		timer := time.NewTimer(hold)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
	case <-n.wake:
	}
	return true
}

// write writes b to s, which is opened if it is nil.
func (l *lanes) write(ctx context.Context, s Stream, b []byte) (Stream, error) {
	if s == nil {
		var err error
		if s, err = l.open(ctx); err != nil {
			return nil, err
		}
	}
	defer context.AfterFunc(ctx, s.Reset)() // a blocked Write does not know of ctx
	if err := s.SetWriteDeadline(time.Now().Add(streamStall)); err != nil {
		return s, err
	}
	_, err := s.Write(b)
	return s, err
}

// fail has all flows go as datagrams for a while.
func (l *lanes) fail() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retry = time.Now().Add(laneRetry)
}

// take takes as many frames as are written at once. If none may leave yet, hold is
// how long they have to wait. able: the site still takes streams.
func (l *lanes) take(now time.Time, n *lane) (frames []laneFrame, hold time.Duration, able bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropOld(now, n, streamStall)
	if len(n.frames) == 0 {
		return nil, 0, l.able
	}
	if hold = n.begin.Sub(now); hold > 0 {
		return nil, hold, l.able
	}
	return l.first(n), 0, l.able
}

// first takes the first frames of a lane. It needs l.mu.
func (l *lanes) first(n *lane) []laneFrame {
	k, size := 0, 0
	for k < len(n.frames) && (k == 0 || size+len(n.frames[k].data) <= laneBatch) {
		size += len(n.frames[k].data)
		k++
	}
	frames := n.frames[:k:k]
	n.frames = n.frames[k:]
	if len(n.frames) == 0 {
		n.frames = nil
	}
	l.hold(n, -size-k*frameCost)
	return frames
}

// dropOld drops what has waited for as long as most. It needs l.mu.
func (l *lanes) dropOld(now time.Time, n *lane, most time.Duration) {
	for len(n.frames) > 0 && now.Sub(n.frames[0].at) >= most {
		f := n.frames[0]
		f.seg.counts.add(DropStream, 1)
		l.hold(n, -len(f.data)-frameCost)
		n.frames = n.frames[1:]
	}
}

// count notes what became of frames.
func count(frames []laneFrame, err error) {
	for _, f := range frames {
		if err != nil {
			f.seg.counts.add(DropStream, 1)
			continue
		}
		f.seg.counts.add(Sent, 1)
		f.seg.counts.add(Streamed, 1)
		f.seg.counts.add(SentBytes, len(f.data)-stream.HeaderLen)
	}
}
