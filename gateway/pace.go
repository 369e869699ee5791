package gateway

import (
	"context"
	"runtime"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// paceEvery is how often the bounds and the codec are looked at.
const paceEvery = 100 * time.Millisecond

// pace sets the bounds of the backlog and the codec by their rules, until ctx
// is done.
func (s *session) pace(ctx context.Context) {
	line, load, codec := lineBacklog(), loadBacklog(), newCodecPace(s)
	defer codec.end()
	var loaded meter
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		st, rounds := s.link.State(), int(s.rounds.Load())
		unacked, _ := s.unacked()
		loading := s.loading()
		loaded.add(meterSample{at: time.Now(), logical: s.delivered.Load()})
		most := lower(st.Rate, s.flow.Rate())
		limit := line.limit(now{st.Goodput, most, unacked, st.RTT, rounds})
		s.limit.Store(limit)
		s.drain.Store(int64(max(line.drain(unacked), load.drain(loading))))
		s.adjust(limit, load.limit(now{loaded.logical(), 0, loading, st.RTT, rounds}), codec.tick(st, unacked, rounds))
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
	s.codec = codec
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

// effort tells how batches are compressed now, and what holds the session up.
func (s *session) effort() (codec, limited string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.codec == (dedup.Setting{}) {
		return "", ""
	}
	return s.codec.String(), string(s.bound)
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

// A codecPace measures for a chooser what it has to know of a session.
type codecPace struct {
	s       *session
	chooser *chooser
	at      time.Time // of the last tick
	works   workTable // until then
	crossed int64     // encoded bytes, until then
	worked  time.Time // when there was work last
	sharing bool      // counted among those that share the cores
}

// idleAfter is how long a session may have nothing to do and still counts for
// one that shares the cores.
const idleAfter = time.Second

func newCodecPace(s *session) *codecPace {
	p := &codecPace{s: s, chooser: newChooser(), at: time.Now()}
	p.chooser.tell(s.cores.line(s.link.Site()))
	return p
}

// end lets the others have the cores.
func (p *codecPace) end() { p.share(false) }

func (p *codecPace) share(yes bool) {
	if yes == p.sharing {
		return
	}
	p.sharing = yes
	if yes {
		p.s.cores.sharers.Add(1)
	} else {
		p.s.cores.sharers.Add(-1)
	}
}

// tick chooses the setting for what comes next.
func (p *codecPace) tick(st tunnel.State, unacked int64, rounds int) dedup.Setting {
	s, n, was := p.s, p.look(st, unacked, rounds), p.chooser.now
	set := p.chooser.tick(n)
	if c := p.chooser; c.line > 0 && !c.told && n.most == 0 { // else it may be the cap
		s.cores.noteLine(s.link.Site(), c.line)
	}
	if p.chooser.now != was {
		s.log.Debug("codec changes", "codec", set.String(), "limit", string(p.chooser.limited))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = p.chooser.limited
	return set
}

// look gathers what was measured since the last tick.
func (p *codecPace) look(st tunnel.State, unacked int64, rounds int) seen {
	s, at, works := p.s, time.Now(), p.s.tally.table()
	facts := s.told()
	crossed := max(s.wire.Load()-unacked, p.crossed)
	n := seen{
		took: at.Sub(p.at), works: works.less(&p.works), crossed: crossed - p.crossed,
		lineWait: s.lineWait.take(), loadWait: s.loadWait.take(), unacked: unacked, arriving: s.arriving(), rtt: st.RTT,
		load: s.cores.load(at), cores: float64(runtime.GOMAXPROCS(0)), channels: len(s.channels()),
		most: lower(st.Rate, s.flow.Rate()), up: st.Up, lateRound: max(rounds, facts.Rounds) >= lateRound, postcopy: facts.Postcopy,
	}
	if n.works.sum().batches > 0 {
		p.worked = at
	}
	p.share(at.Sub(p.worked) < idleAfter)
	n.sharers = int(s.cores.sharers.Load())
	p.at, p.works, p.crossed = at, works, crossed
	return n
}
