package gateway

import (
	"math"
	"time"
)

// others is what the machine does besides our work on a stream. A part of it comes
// with the stream: the hypervisor that writes it, the kernel that carries what is left
// of it and, where both gateways and a test of the line run on one machine, they as
// well. If the machine has no core to spare, that is in our way like our own work, and
// an effort that saves half of ours does not make the move twice as fast.
//
// How much it is shows when the effort changes. If nothing of what others do comes
// with the stream, we have as many cores as before, and more of the stream passes; if
// all does, no more passes than before, and we need fewer cores. Between the two, of
// the cores that the stream takes as a whole,
//
//	used1 / used0 = cost1 / (cost1 + each) * (cost0 + each) / cost0
//
// Until an effort has changed that was held up for long enough, a half of what others
// do is taken for such work, but no more than ours is. That belief fades, so that less
// effort is tried in the end, which tells.
type others struct {
	each  float64 // CPU seconds that a byte of stream takes of them
	known bool    // each is measured

	held    time.Duration // that the CPU has held the move up since each was told
	sharers int           // moves that share what we have
	now     portion       // under the effort of now,
	was     portion       // and under the one before
	apart   time.Duration // between the two, and in breaks of now
}

// A portion is the share of the machine that we had under an effort while the CPU
// held the move up.
type portion struct {
	effort effort
	took   time.Duration
	used   float64 // core seconds
}

func (p portion) cores() float64 { return p.used / p.took.Seconds() }

const (
	shareTime   = 3 * time.Second  // in which a share is known
	mostApart   = 3 * time.Second  // that two may be to be compared
	guessTime   = 30 * time.Second // in which two thirds of the guess are given up,
	knownTime   = 3 * time.Minute  // and of what was told
	comesAlong  = 0.5              // of what others do, is the guess
	mostOfWork  = 0.9              // of all work for the stream may be that of others
	surelySaved = 0.2              // of the CPU time, that efforts differ by from which others' is told
)

// learn takes in a tick under e, at the end of which c is known of the stream.
func (o *others) learn(n seen, e effort, held bool, r *recent, c *content) {
	if e != o.now.effort {
		o.was, o.now, o.apart = o.now, portion{effort: e}, 0
	}
	if !held || !n.crowded() {
		o.now.took, o.now.used = 0, 0 // it is of a machine that had time
		o.apart += n.took
		return
	}
	if n.sharers != o.sharers { // what we have changes by itself
		o.sharers, o.was.took, o.now.took, o.now.used = n.sharers, 0, 0, 0
	}
	o.held += n.took
	o.now.took += n.took
	o.now.used += r.cpu() * n.took.Seconds()
	if o.was.took < shareTime || o.now.took < shareTime || o.apart > mostApart {
		return
	}
	before, after := c.price(o.was.effort).cpu(), c.price(e).cpu()
	if math.Abs(before-after) < surelySaved*before {
		return
	}
	o.each, o.known, o.held = eachOf(before, after, o.now.cores()/o.was.cores()), true, 0
	o.was.took = 0
}

// eachOf is how much of others' CPU time comes with a byte of stream, when efforts
// take so much of ours, and we got so many times the cores under the second.
func eachOf(before, after, cores float64) float64 {
	most := max(before, after) * mostOfWork / (1 - mostOfWork)
	k := cores * before / after // (before + each) / (after + each)
	if (k-1)*(before-after) <= 0 {
		return most
	}
	return min(max((before-k*after)/(k-1), 0), most)
}

// of is the same as known or guessed in a tick in which our work takes cost.
func (o *others) of(n seen, cost float64, r *recent) float64 {
	if !n.crowded() {
		return 0
	}
	each, part, fades := cost, comesAlong, guessTime
	if o.known {
		each, part, fades = o.each, 1, knownTime
	}
	if r.stream() > 0 { // they do no more than they do
		each = min(each, part*max(n.busy-n.own, 0)/r.stream())
	}
	return each * math.Exp(-o.held.Seconds()/fades.Seconds())
}
