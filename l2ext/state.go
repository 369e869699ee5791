package l2ext

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// segment is one stretched network. Constant but for what its locks guard.
type segment struct {
	Segment
	counts   counters
	out      *limiter
	in       map[string]*limiter // by site
	endpoint map[string]vxlan.Endpoint
	tcpOnly  Port            // whose OnlyTCP was called; only the loop uses it
	said     []byte          // what other sites were told of the listeners here; only the loop uses it
	saidAt   time.Time       // likewise
	sends    Listeners       // what the kernel was told last; likewise
	due      map[string]*due // by site; likewise
	digested time.Time       // when sites were told of it by sendDigests; likewise
	adopted  int             // what the kernel was wished to let be last, see Adopted.summary; likewise
	left     bool            // Leave was called: no host is taken for one of this site; likewise
	given    uint64          // frames received at the last reconcile; only the loop uses it
	lot      *lot
	alarmed  atomic.Int64 // when a foreign frame was told of last, in Unix nanoseconds
	loop     *loop        // with locks of its own
	members  *members     // likewise
	answers  *answers     // likewise
	echoes   *answers     // likewise; bounds the answers to other gateways in mode Direct
	ways     *ways        // likewise

	objections *objections // likewise
	taps       *taps       // likewise

	frozenSaid []announce.MAC // what other sites were told of, nil before the first; only the loop uses it

	vlans map[uint16]*segment // of the same bridge, with this one; nil: it has the bridge to itself, see vlan.go

	mu       sync.RWMutex // guards what follows; only the loop writes, and setOdd
	table    *table
	attached Attached
	machines map[string]MAC   // by site, the bridge of its gateway
	trips    map[string]trip  // by the site that has told
	froze    map[string]froze // likewise
	problem  string           // of the host
	lanes    map[string]Lane  // by site, in mode secure-fast
	odd      string           // seen in the bindings
	oddUntil time.Time        // then it is forgotten,
	oddTwin  twin             // or when it is explained
}

// entries are the hosts of other sites.
func (s *segment) entries() (es []Entry) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for mac, b := range s.table.byMAC {
		if e, ok := s.entry(mac, b); ok {
			es = append(es, e)
		}
	}
	return es
}

// entry is what the kernel has for a host of another site; ok is false for others. It
// needs s.mu.
func (s *segment) entry(mac MAC, b *binding) (_ Entry, ok bool) {
	e := s.endpoint[b.rec.Site]
	if b.parked {
		e = s.aside(b)
	}
	return Entry{MAC: mac, Site: e, Coming: s.coming(b)}, e != 0 && !b.withdrawn()
}

// entryOf tells how the kernel has to treat a MAC that is at site.
// It needs s.mu, or to be called by the loop.
func (s *segment) entryOf(mac MAC, site string) Entry {
	return Entry{MAC: mac, Site: s.endpoint[site], Coming: s.coming(s.table.byMAC[mac])} // 0, remove, for a host of this site
}

// coming tells whether a job is about to bring a host here. It needs s.mu.
func (s *segment) coming(b *binding) bool {
	return b != nil && b.ear != nil && b.ear.to == s.table.self && b.rec.Site != s.table.self && b.job == b.ear.job
}

// lookup tells where a MAC is: at another site, here, or at an unknown place.
func (s *segment) lookup(mac MAC) (site string, b binding) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.table.byMAC[mac]; p != nil && !p.withdrawn() {
		return p.rec.Site, binding{since: p.since, left: p.left, parked: p.parked, coming: s.coming(p)}
	}
	return "", binding{}
}

// isAttached tells whether the host has made the segment.
func (s *segment) isAttached() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.attached.Device != "" && s.attached.Err == nil
}
