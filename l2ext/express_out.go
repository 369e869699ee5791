package l2ext

import (
	"errors"
	"os"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// burst is how many frames a reader takes until it sends what waits: those for
// other sites must not wait for a burst that does not end.
const burst = 64

// readPort takes frames from the port of a segment until it is closed.
func (m *Manager) readPort(vni uint32, port Port) {
	o := outward{m: m, express: newExpressOut(m)}
	b := make([]byte, fast.MaxMessage)
	for {
		n, err := port.Read(b)
		for i := 0; err == nil && n > 0; i++ {
			o.message(time.Now(), vni, b[:n])
			if i == burst {
				break
			}
			n, err = port.Next(b)
		}
		o.express.flush()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				m.log.Warn("overlay port cannot be read; it will be made anew", "err", err)
			}
			return
		}
	}
}

// message takes one message of the kernel.
func (o *outward) message(now time.Time, vni uint32, b []byte) {
	seg := o.m.segments()[vni]
	if seg == nil || seg.Mode != SecureFast {
		return // just removed
	}
	fast.Sent(b)
	x, err := parcelOf(b)
	if err != nil {
		seg.counts.add(DropMalformed, 1)
		return
	}
	// The bridge does not say whether it has flooded the frame. It floods
	// unicast only where the policy says so.
	x.flooded = seg.Policy.Unknown == UnknownLimited
	o.frame(now, seg, x)
}

// expressOut seals and sends. One goroutine uses it at a time.
type expressOut struct {
	m    *Manager
	bins map[string]*bin // by site
}

// A bin is what waits to be sent to one site.
type bin struct {
	m      *Manager
	peer   *peer
	key    *outKey      // of the packer
	packer *fast.Packer // nil: there was no key yet
	seg    *segment     // that its frames are of
	frames int          // in it, whole or in parts
	bytes  int
}

func newExpressOut(m *Manager) *expressOut { return &expressOut{m: m, bins: make(map[string]*bin)} }

// add sends a frame of the LAN to a site, now, at the next flush, or behind what was
// parked for its MAC.
func (o *expressOut) add(seg *segment, site string, x parcel) {
	p := o.m.peer(site)
	if p == nil {
		seg.counts.add(DropPeerDown, 1)
		return
	}
	if aside := p.express.aside; aside.precedes(MAC(x.frame)) {
		o.flush() // what waits here for the MAC came before
		if aside.follow(time.Now(), seg, x) {
			return
		}
	}
	o.put(seg, p, x, false)
}

func (o *expressOut) put(seg *segment, p *peer, x parcel, redirected bool) {
	if seg.ways.refuses(p.site) {
		seg.counts.add(DropMode, 1)
		return
	}
	b := o.bin(p)
	if !b.start() {
		seg.counts.add(DropPeerDown, 1)
		return
	}
	if b.seg != seg {
		b.flush()
		b.seg = seg
	}
	message, _ := x.asMessage(nil)
	b.frames++
	b.bytes += len(x.frame)
	if !b.packer.Add(fast.Record{VNI: seg.VNI, Redirected: redirected}, message) {
		b.failed()
	}
}

// bin finds the one of a peer.
func (o *expressOut) bin(p *peer) *bin {
	b := o.bins[p.site]
	if b == nil || b.peer != p { // a site that was removed, and is back, is another peer
		if b != nil {
			b.flush()
		}
		b = &bin{m: o.m, peer: p}
		o.bins[p.site] = b
	}
	return b
}

// start takes the key that is to be used now. It fails when there is none.
func (b *bin) start() bool {
	k := b.peer.express.out.Load()
	if k == nil {
		return false
	}
	if b.key != k {
		b.flush()
		b.key, b.packer = k, fast.NewPacker(&k.ids, b.send)
	}
	if !b.packer.Start(k.sealer, int(b.peer.express.size.Load())) {
		b.failed()
	}
	return true
}

// flush sends all that waits.
func (o *expressOut) flush() {
	for _, b := range o.bins {
		b.flush()
	}
}

func (b *bin) flush() {
	if b.packer != nil && !b.packer.Flush() {
		b.failed()
	}
}

// send is where the packer's batches go.
func (b *bin) send(batch []byte, size int) {
	err := b.m.cfg.Express.Send(b.peer.site, batch, size)
	if b.seg == nil {
		return // a hello
	}
	if err != nil {
		b.failed()
		return
	}
	b.seg.counts.add(Sent, b.frames)
	b.seg.counts.add(SentBytes, b.bytes)
	b.frames, b.bytes = 0, 0
}

// failed counts what was not sent.
func (b *bin) failed() {
	if b.seg != nil {
		b.seg.counts.add(DropCarrier, b.frames)
	}
	b.frames, b.bytes = 0, 0
}

// hello sends one to a peer. What the peer then says tells whether it came.
func (o *expressOut) hello(p *peer, heard uint64) {
	if b := o.bin(p); b.start() {
		b.packer.Hello(heard)
	}
}
