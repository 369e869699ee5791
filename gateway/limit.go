package gateway

import "time"

// limit is what holds a move up.
type limit string

const (
	limitNone        limit = ""            // not known yet
	limitLine        limit = "line"        // it makes us wait
	limitCPU         limit = "cpu"         // of this machine
	limitDestination limit = "destination" // it does not load what has crossed
	limitSource      limit = "source"      // the hypervisor does not send more
)

// seen is what was measured since the last tick.
type seen struct {
	took      time.Duration
	works     workTable
	crossed   int64         // encoded bytes that the destination has taken
	lineWait  time.Duration // that channels waited at the bound of encoded bytes, added up
	loadWait  time.Duration // that they waited at the bound of bytes of stream
	unacked   int64         // encoded bytes that the destination has not taken,
	arriving  int64         // and of these, those that have not come there
	rtt       time.Duration
	load              // of the machine
	cores     float64 // that this process may use
	sharers   int     // moves that share them
	channels  int
	most      int64 // bytes per second that may cross, headers included; 0: any
	up        bool  // the link is
	lateRound bool
	postcopy  bool
}

// full tells that the machine has no core to spare.
func (n *seen) full() bool { return n.idle >= 0 && n.idle < (1-busy)*n.cores }

// crowded tells that others have no core to spare either.
func (n *seen) crowded() bool { return n.idle >= 0 && n.busy > busy*n.all }

// waited tells for how long the channels waited for the line, and for the
// destination. Which bound of the backlog they reached does not tell it: of a stream
// that crosses at 30:1 that of bytes of stream is reached first on a thin line, where
// 8 MiB are but 280 KB, and that of encoded bytes at a slow destination if it crosses
// at 5:1. But where the bytes are does, if that is clear. What a round trip carries
// at rate, in encoded bytes per second, is under way, and does not wait.
func (n *seen) waited(rate float64) (line, load time.Duration) {
	atLine := float64(n.arriving) - rate*n.rtt.Seconds()
	there := float64(n.unacked - n.arriving)
	switch {
	case atLine > there:
		return n.lineWait + n.loadWait, 0
	case there > clearly*atLine && there > float64(n.arriving):
		return 0, n.lineWait + n.loadWait
	}
	return n.lineWait, n.loadWait
}

// recent is what happened in about the last half second.
type recent struct {
	took, crossed, raw, lineWait, loadWait, serial, parallel float64 // seconds and bytes
}

// recentFades is what is left of it after a tick of 100 ms.
const recentFades = 0.8

func (r *recent) add(n seen) {
	for _, v := range []*float64{&r.took, &r.crossed, &r.raw, &r.lineWait, &r.loadWait, &r.serial, &r.parallel} {
		*v *= recentFades
	}
	sum := n.works.sum()
	r.took += n.took.Seconds()
	r.crossed += float64(n.crossed)
	r.raw += float64(sum.raw)
	line, load := n.waited(r.rate())
	r.lineWait += line.Seconds() / float64(n.channels)
	r.loadWait += load.Seconds() / float64(n.channels)
	r.serial += sum.serial.Seconds()
	r.parallel += sum.parallel.Seconds()
}

// rate is what crossed, in encoded bytes per second.
func (r *recent) rate() float64 {
	if r.took == 0 {
		return 0
	}
	return r.crossed / r.took
}

// stream is what was encoded, in bytes of stream per second.
func (r *recent) stream() float64 {
	if r.took == 0 {
		return 0
	}
	return r.raw / r.took
}

// cpu is how many cores the move kept busy.
func (r *recent) cpu() float64 {
	if r.took == 0 {
		return 0
	}
	return (r.serial + r.parallel + lineCost*r.crossed) / r.took
}

const (
	clearly = 3 // times as much waits for the destination as for the line: the line does not hold it up

	waits = 0.3  // of the time: what is waited for so long holds the move up
	busy  = 0.85 // of the time: so is a core that is busy for so long
)

// limit tells what held the move up.
func (r *recent) limit(n seen, codec codecRung) limit {
	switch {
	case r.took == 0 || r.serial == 0 && r.crossed == 0:
		return limitNone
	case r.loadWait >= waits*r.took && r.loadWait > r.lineWait:
		return limitDestination
	case r.lineWait >= waits*r.took:
		return limitLine
	case n.full(), r.cpu() > busy*n.cores/float64(n.sharers),
		r.serial > busy*r.took*float64(n.channels), r.parallel > busy*r.took*codec.cores:
		return limitCPU
	}
	return limitSource
}
