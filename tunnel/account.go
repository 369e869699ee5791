package tunnel

import (
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

const (
	// startFactor is the bytes on the wire for each byte of chunks while none
	// have been measured: 1494 for the about 1410 that a packet carries.
	startFactor = 1.06
	// leastFactor and mostFactor bound what we believe of it.
	leastFactor = 1.03
	mostFactor  = 1.5
	// ackShare is what acknowledgements add to the wire in return for each byte
	// received: one packet of about 85 bytes for every two of 1494.
	ackShare = 0.028
)

// An account holds what flows were charged for against what bulk has used on
// the wire. Link.mu guards it.
type account struct {
	factor  float64 // bytes on the wire for each byte of chunks, of late
	payload int64   // bytes of bulk chunks given to streams since the last settle
	charged int64   // what flows were charged for them
	flows   []*Flow // that were charged
	upkeep  int64   // bytes on the wire of pings: no flow's doing
	settled int64   // upkeep at the last settle
	wire    totals
}

// totals are counters of bytes on the wire as they were.
type totals struct{ sent, received int64 }

// charge takes n bytes of chunks of a flow to account, if its cap permits.
func (a *account) charge(f *Flow, now time.Duration, n int) (wait time.Duration) {
	cost := int(float64(n) * a.factor)
	if wait := f.cap.Take(now, shaper.Bulk, cost); wait > 0 {
		return wait
	}
	f.wire += int64(cost)
	return 0
}

// spent notes that a charge was for bulk.
func (a *account) spent(f *Flow, n int) {
	if f.lately == 0 {
		a.flows = append(a.flows, f)
	}
	f.lately += int64(n)
	a.payload += int64(n)
	a.charged += int64(float64(n) * a.factor)
}

// ping notes n bytes of pings or their answers.
func (a *account) ping(n int) {
	if n > 0 {
		a.upkeep += int64(startFactor*float64(n)) + overhead4
	}
}

// settle charges or refunds what packets and retransmissions have used more or
// less than was thought, so that a flow's cap is right over any second and not
// only on average. now is the link's time. It returns what bulk has sent since
// the last time, without pings and acknowledgements of what was received.
func (a *account) settle(now time.Duration, wire totals) (sent int64) {
	sent = wire.sent - a.wire.sent
	sent -= min(int64(ackShare*float64(wire.received-a.wire.received)), sent)
	sent -= min(a.upkeep-a.settled, sent)
	a.wire, a.settled = wire, a.upkeep
	payload, charged := a.payload, a.charged
	a.payload, a.charged = 0, 0
	if payload > 0 {
		// What is far off is not the flows' doing: streams still hold it, because
		// the line is slow, or held it before.
		used := min(max(sent, int64(leastFactor*float64(payload))), int64(mostFactor*float64(payload)))
		for _, f := range a.flows {
			more := int(float64(used-charged) * float64(f.lately) / float64(payload))
			f.cap.Charge(now, more)
			f.wire += int64(more)
		}
		if payload >= learnFrom {
			a.factor += (float64(used)/float64(payload) - a.factor) / 4
		}
	}
	for _, f := range a.flows {
		f.lately = 0
	}
	clear(a.flows)
	a.flows = slices.Delete(a.flows, 0, len(a.flows))
	return sent
}

// learnFrom is the least bytes between two settles that say something of the
// factor: with fewer, the last packet counts for too much.
const learnFrom = 16 << 10
