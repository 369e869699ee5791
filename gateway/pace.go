package gateway

import (
	"context"
	"runtime"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

// paceEvery is how often the bounds and the codec are looked at.
const paceEvery = 100 * time.Millisecond

// pace sets the bounds of the backlog and the codec by their rules, until ctx
// is done.
func (s *session) pace(ctx context.Context) {
	line, load := lineBacklog(), loadBacklog()
	var loaded meter
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		st, rounds := s.link.State(), int(s.rounds.Load())
		unacked, _ := s.unacked()
		loading := s.loading()
		loaded.add(time.Now(), s.delivered.Load(), 0)
		most := lower(st.Rate, s.flow.Rate())
		limit := line.limit(now{st.Goodput, most, unacked, st.RTT, rounds})
		s.limit.Store(limit)
		s.drain.Store(int64(max(line.drain(unacked), load.drain(loading))))
		known := most // a cap is known before anything is measured
		if known == 0 {
			known = int64(line.pace)
		}
		s.adjust(limit, load.limit(now{loaded.logical(), 0, loading, st.RTT, rounds}), codecFor(known, runtime.GOMAXPROCS(0)))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// adjust sets the bounds of the backlog and the codec of all legs.
func (s *session) adjust(line, load int64, codec dedup.Setting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.legs {
		if l.ch != nil {
			l.ch.SetWindow(line)
		}
		if l.enc != nil {
			l.enc.SetCodec(codec)
		}
		l.win.set(load)
	}
}

// loading is how many bytes of stream the destination has not taken.
func (s *session) loading() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.legs {
		if l.ch != nil {
			n += l.win.onTheWay()
		}
	}
	return n
}

// lower is the lower of two caps, of which 0 is none.
func lower(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
