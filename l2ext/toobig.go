package l2ext

import (
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// maxTooBig bounds the answers to packets that are too long, per second and
// segment: a sender that listens needs one, and Linux gives out 1000 for all.
const maxTooBig = 100

// answers bounds what the gateway says by itself.
type answers struct {
	mu     sync.Mutex // guards what follows
	bucket bucket
}

func newAnswers() *answers { return &answers{bucket: bucket{rate: maxTooBig}} }

func (a *answers) allow(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bucket.take(now, 1)
}

// mtu6 is what IPv6 counts on: a sender that is told less goes on so, and a link that has less has to
// fragment by itself (RFC 8200, section 5), as the way between the sites does.
const mtu6 = 1280

// tooBig answers a frame whose packet is longer than the segment's MTU and may
// not be fragmented: its sender is told the MTU, as by a router.
func (s *segment) tooBig(now time.Time, h ether.Header, x parcel) (answer []byte, tooBig bool) {
	frame, mtu := x.frame, s.MTU
	if h.Type == ether.TypeIPv6 {
		mtu = max(mtu, mtu6)
	}
	if x.longest()-h.Payload <= mtu || !ether.TooBig(h, frame, mtu) {
		return nil, false
	}
	s.counts.add(DropTooLong, 1)
	if !s.answers.allow(now) {
		return nil, true
	}
	s.counts.add(TooBig, 1)
	return ether.AppendTooBig(nil, h, frame, mtu), true
}

// refuseTooBig tells a host of this site.
func (o *outward) refuseTooBig(now time.Time, seg *segment, h ether.Header, x parcel) bool {
	answer, tooBig := seg.tooBig(now, h, x)
	if answer != nil {
		if _, err := o.m.toLAN(seg, parcel{frame: answer}, nil); err != nil {
			seg.counts.add(DropCarrier, 1)
		}
	}
	return tooBig
}

// refuseTooBig tells a host of another site, whose gateway allows more.
func (i inward) refuseTooBig(now time.Time, h ether.Header, x parcel) bool {
	answer, tooBig := i.seg.tooBig(now, h, x)
	if answer != nil {
		back, _ := ether.Parse(answer)
		i.peer.scratch = i.m.send(i.seg, i.from, parcel{frame: answer}, sending{header: back, scratch: i.peer.scratch})
	}
	return tooBig
}
