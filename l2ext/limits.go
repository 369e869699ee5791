package l2ext

import (
	"cmp"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// Limits bound the frames that are not for one known host, in frames per
// second for each segment: once for all that leaves the site, and once for all
// that arrives from each other site. A burst of as many frames as a second
// allows passes at once. Where the host can, no single LAN port may take more than
// half of what leaves.
type Limits struct {
	Resolve   int // ARP and neighbour discovery; 0 means 100
	Broadcast int // other broadcast; 0 means 50
	Multicast int // 0 means 500
	Unknown   int // unicast to a MAC without a binding; 0 means 500
}

// defaultLimits are those of facts/l2-extension.md, section A.5.
var defaultLimits = Limits{Resolve: 100, Broadcast: 50, Multicast: 500, Unknown: 500}

// or fills in what is zero.
func (l Limits) or(d Limits) Limits {
	return Limits{
		Resolve:   cmp.Or(l.Resolve, d.Resolve),
		Broadcast: cmp.Or(l.Broadcast, d.Broadcast),
		Multicast: cmp.Or(l.Multicast, d.Multicast),
		Unknown:   cmp.Or(l.Unknown, d.Unknown),
	}
}

// A bucket passes rate events a second. It is told the time.
type bucket struct {
	rate   float64 // per second, and the greatest burst
	tokens float64
	last   time.Time
}

func (b *bucket) take(now time.Time, n int) bool {
	if b.last.IsZero() {
		b.tokens = b.rate
	} else if d := now.Sub(b.last); d > 0 {
		b.tokens = min(b.rate, b.tokens+d.Seconds()*b.rate)
	}
	b.last = now
	if b.tokens < float64(n) {
		return false
	}
	b.tokens -= float64(n)
	return true
}

// A limiter holds the buckets of one direction.
type limiter struct {
	mu      sync.Mutex // guards what follows
	buckets [4]bucket  // by class; that of Unicast is for unknown ones
}

func newLimiter(l Limits) *limiter {
	var lim limiter
	for class, rate := range map[ether.Class]int{
		ether.Unicast: l.Unknown, ether.Resolve: l.Resolve, ether.AllHosts: l.Broadcast, ether.Multicast: l.Multicast,
	} {
		lim.buckets[class].rate = float64(rate)
	}
	return &lim
}

// allow tells whether n frames of the class may pass together, and if not, how to
// count them.
func (l *limiter) allow(now time.Time, class ether.Class, n int) (drop Count, ok bool) {
	l.mu.Lock()
	ok = l.buckets[class].take(now, n)
	l.mu.Unlock()
	switch class {
	case ether.Unicast:
		return DropUnknown, ok
	case ether.Resolve:
		return DropResolve, ok
	case ether.AllHosts:
		return DropBroadcast, ok
	}
	return DropMulticast, ok
}
