package tunnel

import (
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
// the wire. A flow is charged when a stream takes its bytes, and they are known
// to have left when the stream has written them. Link.mu guards it.
type account struct {
	factor  float64            // bytes on the wire for each byte of chunks, of late
	payload int64              // bytes of bulk chunks written since the account was settled
	flows   []*Flow            // whose they are
	used    int64              // used on the wire until it was settled
	at      time.Duration      // when it was settled
	upkeep  int64              // bytes on the wire of pings: no flow's doing
	byClass [flowClasses]int64 // bytes on the wire that bulk of each was charged for
}

// charge asks the cap of a flow for n bytes of chunks.
func (a *account) charge(f *Flow, class Class, now time.Duration, n int) (wait time.Duration) {
	cost := int(float64(n) * a.factor)
	if wait := f.cap.Take(now, shaper.Bulk, cost); wait > 0 {
		return wait
	}
	f.wire += int64(cost)
	if class == Bulk {
		a.byClass[f.class()] += int64(cost)
	}
	return 0
}

// written notes that pieces of bulk have left, as far as streams know.
func (a *account) written(ps []piece) {
	for _, p := range ps {
		n := int64(p.Len) + int64(p.HeadLen())
		if p.flow.lately == 0 {
			a.flows = append(a.flows, p.flow)
		}
		p.flow.lately += n
		a.payload += n
	}
}

// ping notes n bytes of pings or their answers.
func (a *account) ping(n int) {
	if n > 0 {
		a.upkeep += int64(startFactor*float64(n)) + overhead4
	}
}

// bulkUsed is the bytes on the wire that chunks have used so far. The caller
// holds mu.
func (l *Link) bulkUsed() int64 {
	t := &l.wire[shaper.Bulk]
	return t.sent.Load() - int64(ackShare*float64(t.received.Load())) - l.account.upkeep
}

// settle charges or refunds what packets and retransmissions have used more or
// less than was thought, so that a flow's cap is right over any second and not
// only on average. used is bulkUsed, now the link's time.
func (a *account) settle(now time.Duration, used int64) {
	if now-a.at < settleEvery || a.payload == 0 {
		return
	}
	charged := a.factor * float64(a.payload)
	more := float64(used-a.used) - charged
	// What is far off is not the flows' doing.
	more = min(max(more, -charged/2), charged/2)
	for _, f := range a.flows {
		part := int(more * float64(f.lately) / float64(a.payload))
		f.cap.Charge(now, part)
		f.wire += int64(part)
		a.byClass[f.class()] += int64(part)
		f.lately = 0
	}
	// Half of it is learned in 100 kB: the last packet counts for little then.
	weight := float64(a.payload) / (float64(a.payload) + learnOver)
	f := min(max((charged+more)/float64(a.payload), leastFactor), mostFactor)
	a.factor += weight * (f - a.factor)
	clear(a.flows)
	a.flows = a.flows[:0]
	a.payload, a.used, a.at = 0, used, now
}

const (
	settleEvery = 50 * time.Millisecond
	learnOver   = 100_000
)
