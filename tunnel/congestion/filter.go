package congestion

import "time"

// filterRounds is how long the best delivery rate counts: BBR's ten rounds,
// more than the time between two probes needs to be seen.
const filterRounds = 10

// A maxFilter is the largest value of the last filterRounds rounds.
type maxFilter struct {
	best [filterRounds]int64 // by round; best[at] is the round that is on
	at   int
}

func (f *maxFilter) add(v int64) { f.best[f.at] = max(f.best[f.at], v) }

// next begins a round.
func (f *maxFilter) next() {
	f.at = (f.at + 1) % filterRounds
	f.best[f.at] = 0
}

func (f *maxFilter) value() (v int64) {
	for _, b := range f.best {
		v = max(v, b)
	}
	return v
}

// limit forgets all that is above v, and makes v the value.
func (f *maxFilter) limit(v int64) {
	for i, b := range f.best {
		f.best[i] = min(b, v)
	}
	f.add(v)
}

// A window is the smallest RTT over a stretch of time, in two halves: what it
// tells is of at least one length and at most two.
type window struct {
	began     time.Duration
	now, last time.Duration // smallest of this half and of the one before; 0: none
}

// add notes an RTT. It tells the smallest over the last length; 0 while too
// little is known.
func (w *window) add(now, rtt, length time.Duration) time.Duration {
	if now-w.began >= length {
		w.last, w.now, w.began = w.now, 0, now
	}
	if w.now == 0 || rtt < w.now {
		w.now = rtt
	}
	if w.last == 0 {
		return 0
	}
	return min(w.now, w.last)
}

// minRTTFor is how long a minimum RTT counts without having been seen again.
const minRTTFor = 10 * time.Second

// A minFilter is the smallest RTT of late.
type minFilter struct {
	rtt  time.Duration // 0: none yet
	seen time.Duration // when it, or nearly it, was last seen
}

func (f *minFilter) add(now, rtt time.Duration) {
	switch {
	case f.rtt == 0 || rtt <= f.rtt:
		f.rtt, f.seen = rtt, now
	case rtt <= f.rtt+max(f.rtt/50, time.Millisecond):
		f.seen = now
	}
}

// old tells whether it is time to look for it again.
func (f *minFilter) old(now time.Duration) bool { return f.rtt > 0 && now-f.seen > minRTTFor }
