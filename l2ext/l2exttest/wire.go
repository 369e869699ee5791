package l2exttest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
)

// Line says what a Wire does to what crosses it.
type Line struct {
	Delay    time.Duration // one way
	Loss     float64       // of frames, 0 to 1; urgent messages are not lost
	Datagram int           // bytes; 0 means 1243, what QUIC has after its handshake
	Seed     uint64        // of the losses
}

// A Wire joins managers. Each pair of sites has a line of its own.
type Wire struct {
	line Line

	mu     sync.Mutex // guards what follows
	rnd    *rand.Rand
	ends   map[string]*l2ext.Manager
	lanes  map[lane]chan item
	cut    bool
	away   map[string]bool // sites that are cut off
	mute   bool
	heals  int // how often the line came to be there
	frames int
	urgent int
	watch  func(datagram []byte)
}

type lane struct {
	from, to string
	urgent   bool
}

type item struct {
	due  time.Time
	data []byte
	size int // of its datagrams, if it came beside the link; else 0
}

// NewWire makes a line that nothing is joined to.
func NewWire(l Line) *Wire {
	if l.Datagram == 0 {
		l.Datagram = 1243
	}
	return &Wire{line: l, rnd: rand.New(rand.NewPCG(l.Seed, 1)), ends: make(map[string]*l2ext.Manager), lanes: make(map[lane]chan item), away: make(map[string]bool)}
}

// End is the Carrier of a site, which is joined later by Join.
func (w *Wire) End(site string) l2ext.Carrier { return end{w: w, site: site} }

// Join joins managers, by their sites. A later call may replace some of them.
func (w *Wire) Join(ms map[string]*l2ext.Manager) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for site, m := range ms {
		w.ends[site] = m
	}
	for from := range ms {
		for to := range ms {
			for _, urgent := range []bool{false, true} {
				if l := (lane{from, to, urgent}); from != to && w.lanes[l] == nil {
					// 4096: at 20 ms of delay, 200 000 frames a second
					w.lanes[l] = make(chan item, 4096)
				}
			}
		}
	}
}

// Run carries what is sent until ctx ends. It tells all managers that their
// peers are up first.
func (w *Wire) Run(ctx context.Context) {
	w.Heal()
	var wg sync.WaitGroup
	w.mu.Lock()
	for l, c := range w.lanes {
		wg.Go(func() { w.carry(ctx, l, c) })
	}
	w.mu.Unlock()
	wg.Wait()
}

func (w *Wire) carry(ctx context.Context, l lane, c <-chan item) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var it item
		select {
		case <-ctx.Done():
			return
		case it = <-c:
		}
		if d := time.Until(it.due); d > 0 {
			timer.Reset(d)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
		w.mu.Lock()
		m, cut := w.ends[l.to], w.isCut(l)
		w.mu.Unlock()
		switch {
		case cut:
		case it.size > 0:
			_ = m.HandleExpress(it.data, it.size)
		case l.urgent:
			_ = m.HandleUrgent(l.from, it.data) // a refusal is the test's business, by its effects
		default:
			_ = m.HandleDatagram(l.from, it.data)
		}
	}
}

// Cut takes the line away, with all that is on it, and tells the managers.
func (w *Wire) Cut() { w.set(true, (*l2ext.Manager).PeerDown) }

// Heal brings the line back, and tells the managers.
func (w *Wire) Heal() { w.set(false, (*l2ext.Manager).PeerUp) }

func (w *Wire) set(cut bool, tell func(*l2ext.Manager, string)) {
	w.mu.Lock()
	if !cut {
		w.heals++
	}
	w.cut = cut
	ends := make(map[string]*l2ext.Manager, len(w.ends))
	var sites []string
	for site, m := range w.ends {
		ends[site] = m
		sites = append(sites, site)
	}
	w.mu.Unlock()
	slices.Sort(sites)
	for _, site := range sites {
		for _, other := range sites {
			if other != site {
				tell(ends[site], other)
			}
		}
	}
}

// Isolate cuts one site off, with all that is under way from or to it, and tells
// the managers.
func (w *Wire) Isolate(site string) { w.setAway(site, true) }

// Rejoin ends that.
func (w *Wire) Rejoin(site string) { w.setAway(site, false) }

func (w *Wire) setAway(site string, away bool) {
	w.mu.Lock()
	w.away[site] = away
	m := w.ends[site]
	others := maps.Clone(w.ends)
	w.mu.Unlock()
	delete(others, site)
	for _, other := range slices.Sorted(maps.Keys(others)) {
		if away {
			m.PeerDown(other)
			others[other].PeerDown(site)
		} else {
			m.PeerUp(other)
			others[other].PeerUp(site)
		}
	}
}

// isCut needs w.mu.
func (w *Wire) isCut(l lane) bool { return w.cut || w.away[l.from] || w.away[l.to] }

// Mute swallows urgent messages from now on, or ends that. No real link does
// so; it stands for any fault by which an announcement is lost.
func (w *Wire) Mute(mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = mute
}

// SetLoss changes the loss of frames.
func (w *Wire) SetLoss(loss float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line.Loss = loss
}

// Sent tells how many frames' datagrams and how many urgent messages were sent.
func (w *Wire) Sent() (frames, urgent int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frames, w.urgent
}

// Watch has f see each datagram that is sent from now on, before it may be lost;
// nil ends that. f must not keep it, nor call the Wire.
func (w *Wire) Watch(f func(datagram []byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch = f
}

// errCut says that there is no line.
var errCut = errors.New("l2exttest: the wire is cut")

func (w *Wire) send(l lane, b []byte) error { return w.put(l, item{data: b}) }

func (w *Wire) put(l lane, it item) error {
	b := it.data
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.lanes[l]
	if w.isCut(l) || c == nil {
		return errCut
	}
	if l.urgent && w.mute {
		return nil
	}
	if l.urgent {
		w.urgent++
	} else {
		w.frames++
		if w.watch != nil {
			w.watch(b)
		}
		if w.rnd.Float64() < w.line.Loss {
			return nil
		}
	}
	it.due = time.Now().Add(w.line.Delay)
	select {
	case c <- it:
		return nil
	default:
		return errors.New("l2exttest: the wire is full")
	}
}

// end is a Wire as one site sees it.
type end struct {
	w    *Wire
	site string
}

// SendFrame sends a datagram.
func (e end) SendFrame(site string, b []byte) error {
	return e.w.send(lane{e.site, site, false}, slices.Clone(b))
}

// SendUrgent sends a message.
func (e end) SendUrgent(_ context.Context, site string, b []byte) error {
	return e.w.send(lane{e.site, site, true}, b)
}

// MaxDatagram is the longest datagram of the line.
func (e end) MaxDatagram(site string) int {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.w.isCut(lane{from: e.site, to: site}) || e.w.ends[site] == nil {
		return 0
	}
	return e.w.line.Datagram
}
