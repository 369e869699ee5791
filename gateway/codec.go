package gateway

import (
	"math"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

// A chooser picks how batches are encoded and compressed, such that a move is
// as fast as the slower of the CPU and the line allows. It is told every 100 ms
// what was measured, and knows no clock. By what it foretells of an effort
// (content.go), the stream passes at
//
//	cost = serial + parallel + lineCost wire
//	rate = min(line / wire, channels / serial, cores / cost, shared / (cost + others))
//
// bytes per second: what the line takes, what the one core takes that encodes a
// channel, what all cores take that this move may use, and what they take of it with
// all that comes with the stream on a crowded machine (others.go). The effort with the
// highest rate is best; of those that are nearly as fast, where the line takes less
// than thinLine, the one that leaves the fewest bytes (thrifty); and there one that
// leaves a tenth more must promise two fifths to be gone over to.
//
//	line    is what crossed while the line made us wait, and at most a cap. If
//	        it does not make us wait, and more crosses than that, it has become
//	        faster, and is not known until it makes us wait again. For its first
//	        seconds a move believes what another knew: one that is begun again
//	        sends references, and would not find out before pages come of which
//	        a search saves most.
//	cores   are divided by the moves that share them.
//	shared  is the time that our work took and that of others with it, and an equal
//	        share of what was idle on the machine, since the hypervisor and its
//	        guests come first; but an eighth of the cores, unless it has been
//	        found that we do not get that.
//
// Less effort is made at once, when it promises 5 per cent more in two ticks.
// More is made step by step, one rung of each kind at a time, when it promises 1
// per cent more and leaves a fifth of the cores free; and a weaker codec does
// where a stronger one does not save half a per cent. To change its mind the
// chooser has a credit of six times, and gets one more every minute, so
// that what is foretold wrongly does not end in swinging. What promises a quarter
// more it does in any case.
//
// While neither the line nor the CPU holds the move up, the effort stays. But to
// expand what fold and press have made takes as long as to make it, and the other
// gateway may have less time for that than we: where the destination holds the move
// up, zstd does.
//
// What has been gone over to while the line was not known may be what it cannot bear.
// If that shows, and less of the stream passes than did before, the effort of before
// is made again, however little of the cores it leaves free: it has been seen to work.
//
// Without a search nothing tells what one would find. So one tick in twenty
// searches: what was cold may be followed by what resembles a VM that crossed
// before, where a search saves more work than it makes.
//
// In late rounds a batch counts as well by how long it takes to compress: the
// switchover waits for it. Of 100 ms that it may take to cross, that time is
// lost; of 10 ms in a postcopy, where the guest waits for pages:
//
//	rate haste / (haste + time of a batch)
type chooser struct {
	content content
	others  others
	now     effort
	recent  recent
	limited limit   // what holds the move up
	line    float64 // bytes per second; 0: not known
	told    bool    // line is what another move knew of it

	began  time.Duration // since the first tick
	age    time.Duration // since the last change
	blind  time.Duration // without a search
	probe  bool          // the batches of this tick are searched for, whatever now says
	late   bool          // in the last tick: it is a late round, or a postcopy
	credit float64       // changes that may still be made
	short  int           // ticks in a row that asked for less

	was     effort  // before the last change
	wasRate float64 // and how much of the stream passed then, bytes per second; 0: not known
}

const (
	gainLess   = 1.05  // that less effort must promise,
	shortTicks = 2     // for so long
	gainMuch   = 1.25  // that needs no credit
	gainWaste  = 1.4   // that an effort must which leaves clearly more bytes for a thin line
	gainMore   = 1.01  // that more effort must promise
	noGain     = 0.995 // of the bytes: a codec that leaves no more than that less saves nothing
	faster     = 1.25  // than the line was known to be: that much is no longer noise
	fairCores  = 0.125 // of the cores that a move may use, however busy the machine is
	spareCores = 0.8   // of the cores, and of the time of a channel's core, that more effort may reckon with

	quickest   = 4                      // rung of the strongest codec that expands fast
	firstMost  = 3                      // rung of a codec that may be the first: more, on a slow machine, would cost a second
	hold       = time.Second            // from one change to one for more effort
	toldTime   = 10 * time.Second       // in which what another move knew of the line is believed
	mostCredit = 6                      // changes
	creditTime = time.Minute            // in which one is earned
	settling   = time.Second            // in which what is measured is credited to the new effort alone
	slowStart  = 2 * time.Second        // in which the line's congestion control finds out what it carries
	lagging    = 500 * time.Millisecond // in which what is measured is still of the effort before
	probeEvery = 2 * time.Second
	lateRound  = 3
	lateHaste  = 100 * time.Millisecond
	pageHaste  = 10 * time.Millisecond
	thinLine   = 40e6 // bytes per second
	nearly     = 0.8  // of the highest rate, on such a line: more exactly it is not foretold
	lessWire   = 0.9  // of the bytes are clearly fewer, there
	capHeaders = 1.06 // bytes on the wire, which caps count, for each byte of messages
)

func newChooser() *chooser {
	return &chooser{content: newContent(), now: firstEffort, credit: mostCredit}
}

// tell gives the chooser of a move that begins what another knew of the line, in bytes per
// second; 0 is nothing.
func (c *chooser) tell(line float64) { c.line, c.told = line, line > 0 }

// tick is called every 100 ms, or whenever there is something to tell.
func (c *chooser) tick(n seen) dedup.Setting {
	n.channels, n.sharers = max(n.channels, 1), max(n.sharers, 1)
	if c.began == 0 && n.most > 0 {
		c.now = c.best(c.bounds(n), func(e effort) bool { return e.codec <= firstMost })
	}
	c.began += n.took
	c.age += n.took
	if late := n.lateRound || n.postcopy; late != c.late { // other rules hold
		c.late, c.credit = late, max(c.credit, 2)
		c.age, c.short = 0, 0   // and what was measured is of the rounds before
		defer c.content.renew() // as are most batches of this tick
	}
	c.credit = min(c.credit+n.took.Seconds()/creditTime.Seconds(), mostCredit)
	fresh := c.age <= settling && c.age < c.began
	n.works.each(func(e effort, w work) { c.content.learn(e, w, !fresh || e != c.now) })
	c.recent.add(n)
	c.limited = c.recent.limit(n, codecRungs[c.now.codec])
	c.others.learn(n, c.now, c.limited == limitCPU && c.age >= lagging, &c.recent, &c.content)
	c.measureLine(n)
	c.choose(n)
	c.peek(n.took)
	return c.effort().setting()
}

// effort is that of the batches of this tick.
func (c *chooser) effort() effort {
	if c.probe {
		return effort{c.now.codec, 1}
	}
	return c.now
}

// peek tries a search now and then if none is made otherwise.
func (c *chooser) peek(took time.Duration) {
	if c.blind += took; c.now.search > 0 || c.probe {
		c.blind = 0
	}
	c.probe = c.blind >= probeEvery
}

// measureLine keeps what the line is known to carry. On a machine without a core
// to spare it is not taken for slower: packets need time of the CPU as well.
func (c *chooser) measureLine(n seen) {
	if c.told && c.began >= toldTime {
		c.tell(0)
	}
	rate := c.recent.rate()
	switch {
	case !n.up || rate == 0, c.age < lagging, n.most > 0 && c.began < slowStart:
	case c.limited == limitLine && (c.line == 0 || c.told):
		c.line, c.told = rate, false
	case c.limited == limitLine && (rate > c.line || !n.full()):
		c.line += (rate - c.line) / 8
	case c.limited != limitLine && rate > faster*c.line:
		c.tell(0)
	}
}

// bounds are what a rate is bound by.
type bounds struct {
	line     float64       // bytes per second
	cores    float64       // for our work,
	shared   float64       // and for that of others that comes with it as well,
	others   float64       // which is so many CPU seconds per byte of stream
	channels float64       // cores that encode
	haste    time.Duration // 0: none
}

// thin tells that the line takes so little that others feel each byte, and that nobody
// waits.
func (b bounds) thin() bool { return b.line <= thinLine && b.haste == 0 }

func (c *chooser) bounds(n seen) bounds {
	p := c.content.price(c.now)
	b := bounds{
		line: math.Inf(1), cores: n.cores / float64(n.sharers), shared: math.Inf(1),
		others: c.others.of(n, p.cpu(), &c.recent), channels: float64(n.channels),
	}
	if n.most > 0 {
		b.line = float64(n.most) / capHeaders
	}
	if c.line > 0 {
		b.line = min(b.line, c.line)
	}
	if n.idle >= 0 {
		used := c.recent.cpu() + b.others*c.recent.stream()
		if c.limited == limitLine { // what we do now is no more than we can
			used = max(used, b.line/p.wire*(p.cpu()+b.others), fairCores*b.cores)
		}
		b.shared = used + n.idle/float64(n.sharers)
	}
	switch {
	case n.postcopy:
		b.haste = pageHaste
	case n.lateRound:
		b.haste = lateHaste
	}
	return b
}

// rate is how fast the stream passes under e, in bytes per second.
func (c *chooser) rate(e effort, b bounds) float64 {
	p := c.content.price(e)
	rate := min(b.line/p.wire, b.channels/p.serial, b.cores/p.cpu(), b.shared/(p.cpu()+b.others), codecRungs[e.codec].cores/p.parallel)
	if b.haste > 0 {
		plain, raw := e.setting().BatchSize()
		batch := min(float64(plain)/max(c.content.plain, 0.01), float64(raw))
		rate *= b.haste.Seconds() / (b.haste.Seconds() + batch*p.parallel)
	}
	return rate
}

// thrifty is, of the efforts that are foretold to be nearly as fast as best, the
// one that leaves the fewest bytes. Others share a thin line, and what is foretold
// of a machine without a core to spare is no more exact than that. While a guest
// waits only time counts.
func (c *chooser) thrifty(best effort, b bounds, may func(effort) bool) effort {
	if !b.thin() {
		return best
	}
	least := nearly * c.rate(best, b)
	for e := range efforts {
		if may(e) && c.rate(e, b) >= least && c.content.price(e).wire < c.content.price(best).wire {
			best = e
		}
	}
	return best
}

// best is the effort to make, of those that may be.
func (c *chooser) best(b bounds, may func(effort) bool) effort {
	return c.thrifty(c.fastest(b, may), b, may)
}

// fastest is the effort with the highest rate of those that may be; of equals the
// one that takes least. Raw must be clearly better, since it tells nothing of how
// the stream would compress.
func (c *chooser) fastest(b bounds, may func(effort) bool) effort {
	best, most := c.now, 0.0
	try := func(e effort, by float64) {
		if may(e) {
			if r := c.rate(e, b); r > by*most {
				best, most = e, r
			}
		}
	}
	for e := range efforts {
		if e.codec > 0 {
			try(e, 1.002)
		}
	}
	for s := range searchRungs {
		try(effort{0, s}, gainLess)
	}
	return best
}

// choose changes the effort if that pays.
func (c *chooser) choose(n seen) {
	held := c.limited == limitLine || c.limited == limitCPU
	b := c.bounds(n)
	if c.limited == limitDestination && c.age >= lagging && c.credit >= 1 && c.now.codec > quickest {
		c.change(effort{quickest, c.now.search}, 1)
		return
	}
	if c.age < lagging || !held && b.haste == 0 {
		c.short = 0
		return
	}
	if !c.takeLess(b) && held && c.age >= hold && !c.takeMore(b) && !c.takeBack(b) {
		c.spare()
	}
}

// takeBack goes over to the effort of before again, where more of the stream passed,
// if the line is why.
func (c *chooser) takeBack(b bounds) bool {
	gain := min(c.rate(c.was, b)/c.rate(c.now, b), c.wasRate/c.recent.stream())
	fewer := c.content.price(c.was).wire < c.content.price(c.now).wire
	if c.limited != limitLine || !fewer || gain < gainLess || c.credit < 1 {
		return false
	}
	c.change(c.was, gain)
	return true
}

// takeLess goes over to an effort that takes less of the CPU, or leaves more for
// the line, and is faster. Where the one core that encodes holds the move up, less of
// that core is less, whatever the others have to do.
func (c *chooser) takeLess(b bounds) bool {
	now := c.content.price(c.now)
	alone := b.channels/now.serial <= c.rate(c.now, b)
	less := c.best(b, func(e effort) bool {
		p := c.content.price(e)
		return p.wire >= now.wire || p.cpu() <= now.cpu() || alone && p.serial < now.serial
	})
	gain := c.rate(less, b) / c.rate(c.now, b)
	surely := !b.thin() || gain >= gainWaste || c.content.price(less).wire*lessWire <= now.wire
	if surely && (gain >= gainMuch || gain >= gainLess && c.credit >= 1) {
		c.short++
	} else {
		c.short = 0
	}
	if c.short < shortTicks {
		return false
	}
	if math.IsInf(b.line, 1) { // it may be just fast enough for the next, which shows soon
		less.codec = max(less.codec, c.now.codec-1)
	}
	c.change(less, gain)
	return true
}

// takeMore goes over to an effort that leaves fewer bytes and is faster, if that
// is near.
func (c *chooser) takeMore(b bounds) bool {
	b.cores, b.shared, b.channels = b.cores*spareCores, b.shared*spareCores, b.channels*spareCores
	wire := c.content.price(c.now).wire
	more := c.best(b, func(e effort) bool {
		return e.codec <= c.now.codec+1 && e.search <= c.now.search+1 && c.content.price(e).wire < wire
	})
	least := gainMore
	switch {
	case c.credit < 1:
		least = gainMuch
	case c.limited == limitCPU: // of which more effort rarely saves any
		least = gainLess
	}
	gain := c.rate(more, b) / c.rate(c.now, b)
	thrift := more != c.now && b.thin() && c.credit >= 1 && c.content.price(more).wire <= lessWire*wire &&
		c.rate(more, b) >= nearly*c.rate(c.fastest(b, func(effort) bool { return true }), b)
	if gain < least && !thrift {
		return false
	}
	c.change(more, gain)
	return true
}

// spare goes over to a weaker codec that leaves as few bytes: LZ4 on noise, which
// costs it nothing, and it notices when that ends.
func (c *chooser) spare() {
	wire := c.content.price(c.now).wire
	for e := (effort{1, c.now.search}); e.codec < c.now.codec; e.codec++ {
		if c.credit >= 1 && wire >= noGain*c.content.price(e).wire {
			c.change(e, 1)
			return
		}
	}
}

// change goes over to e, which promises a gain.
func (c *chooser) change(e effort, gain float64) {
	if gain < gainMuch {
		c.credit--
	}
	c.was, c.wasRate = c.now, c.recent.stream()
	c.now, c.age, c.short = e, 0, 0
	c.recent = recent{}
}
