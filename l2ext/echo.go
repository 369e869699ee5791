package l2ext

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// echoes are the questions of this gateway that wait for an answer.
type echoes struct {
	mu      sync.Mutex // guards what follows
	next    uint64
	waiting map[uint64]chan struct{}
}

// maxEchoes bounds them; more is no operator's wish.
const maxEchoes = 64

func (e *echoes) ask() (number uint64, answered chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) >= maxEchoes {
		return 0, nil, fmt.Errorf("l2ext: %d echoes wait for an answer already", len(e.waiting))
	}
	e.next++
	answered = make(chan struct{})
	e.waiting[e.next] = answered
	return e.next, answered, nil
}

func (e *echoes) answer(number uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.waiting[number]; c != nil {
		close(c)
		delete(e.waiting, number)
	}
}

func (e *echoes) forget(number uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.waiting, number)
}

// Echo sends a frame with a payload of size bytes to the gateway of a site, and
// back, over a segment that both share. It goes the way of guests' frames, cut
// into parts as they are. It is told how long that took, or fails when ctx ends
// before the frame is back.
func (m *Manager) Echo(ctx context.Context, name, site string, size int) (time.Duration, error) {
	var seg *segment
	for _, s := range m.segments() {
		if s.Name == name && s.endpoint[site] != 0 {
			seg = s
		}
	}
	if seg == nil {
		return 0, fmt.Errorf("l2ext: echo from site %s: no segment %s is shared with it", site, name)
	}
	number, answered, err := m.echoes.ask()
	if err != nil {
		return 0, err
	}
	defer m.echoes.forget(number)
	frame := probe.Echo{Src: m.signer.src, Number: number, Size: ether.HeaderLen + size}.Append(nil)
	h, err := ether.Parse(frame)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if seg.Mode == Direct {
		m.inject(seg, question{site: site, number: number, full: true}.frame(seg.VNI, m.cfg.Site, ether.HeaderLen+size))
	} else {
		m.send(seg, site, parcel{frame: frame}, sending{header: h})
	}
	select {
	case <-answered:
		return time.Since(start), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("a frame with %d bytes did not come back from site %s: %w", size, site, context.Cause(ctx))
	}
}

// takeEcho takes a frame of another site that is an echo, and answers it. One for
// the address of a gateway is not: in these modes, any host of the other site can
// have sent it.
func (i inward) takeEcho(now time.Time, frame []byte) bool {
	e, err := probe.ParseEcho(frame)
	if err != nil || e.Dst != (MAC{}) {
		return false
	}
	if e.Reply {
		i.m.echoes.answer(e.Number)
		return true
	}
	if i.seg.answers.allow(now) {
		e.Reply, e.Src = true, i.m.signer.src
		answer := e.Append(nil)
		h, _ := ether.Parse(answer)
		i.peer.scratch = i.m.send(i.seg, i.from, parcel{frame: answer}, sending{header: h, scratch: i.peer.scratch})
	}
	return true
}

// Clocks tells how far the clocks of other sites are ahead of this machine's,
// less the time that the news took. It knows only sites with which a segment is
// shared, once their gateways have said something.
func (m *Manager) Clocks() map[string]time.Duration {
	m.signer.mu.Lock()
	defer m.signer.mu.Unlock()
	out := make(map[string]time.Duration, len(m.signer.clock))
	for site, d := range m.signer.clock {
		if m.peer(site) != nil {
			out[site] = d
		}
	}
	return out
}
