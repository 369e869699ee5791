package l2ext

import (
	"crypto/rand"
	"encoding/binary"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// Each site tells each other one how to seal for it (announce.Express), with keys
// whose root is a secret of the link's connection: a new epoch when that is
// another one, and every rekeyEvery.
//
// A key that is derived twice would count its datagrams from 0 twice, and
// AES-GCM that seals two with one nonce hides neither. So what is agreed with a site
// is kept for as long as the gateway runs, whatever becomes of its segments: the
// number of our newest epoch, which only rises, and the sealer of the newest epoch
// of the site. Of one secret an older epoch is refused, and the same one goes on
// with the same sealer.

const (
	// rekeyEvery is as WireGuard's; a key seals fast.MaxSealed datagrams, which is an
	// hour at 1 Gbit/s.
	rekeyEvery = 2 * time.Minute
	// tellEvery is how often a peer of which nothing is heard is told of a new key,
	// for tellOften: a tick, and less than its jitter. Then it is told with each digest.
	tellEvery = tickEvery * 9 / 10
	tellOften = 10 * time.Second
	// offersAtOnce bounds the messages by which it is told: its queue (maxQueued) has
	// room for more than these.
	offersAtOnce = 16
)

// An agreement is what this gateway and a site have said to each other about keys.
// It outlives the peer: a segment may be removed, and made anew, while the link's
// secret stays. There is one for each site that has shared a segment while its link was
// up, which is at most the fleet, of about 1 KiB. The loop owns it.
type agreement struct {
	epoch uint64           // the newest in which we open; 0: none yet
	offer announce.Message // what the site has said last of how to seal for it
	last  *outKey          // of the newest epoch of the site that was followed; nil: none yet
}

// keyRoot is what keys are derived from.
type keyRoot struct {
	secret fast.Secret
	name   uint64 // of the secret
}

// outKey is how to seal for a site.
type outKey struct {
	sealer *fast.Sealer
	root   keyRoot
	epoch  uint64
	// ids number the messages that are cut. Of one key no number comes twice: it is
	// worn out long before. Pieces of two messages are never taken for those of one.
	ids atomic.Uint32
}

// inKey opens what a peer has sealed.
type inKey struct {
	peer   *peer
	index  uint32
	root   keyRoot
	epoch  uint64
	made   time.Time
	before *inKey // still good for what is under way; nil: there is none

	// Guarded by peer.rx.
	opener *fast.Opener
	joiner fast.Joiner // a message is sealed with one key, all of it
	gaveUp uint64      // messages that the joiner gave up, as far as they are counted

	// Owned by the loop.
	told   time.Time // when the peer was told of it
	offers int       // how often, of one segment or another
}

// agreementWith is what is agreed with a site.
func (m *Manager) agreementWith(site string) *agreement {
	a := m.agreed[site]
	if a == nil {
		a = &agreement{}
		m.agreed[site] = a
	}
	return a
}

// leaveExpress ends what only a peer needs, when its site is none any more.
func (m *Manager) leaveExpress(p *peer) {
	m.forgetKeys(p)
	if p.express.agreed.epoch == 0 { // no secret was known yet, so that no key can come again
		delete(m.agreed, p.site)
	}
}

// rootWith is the root of the keys between this site and another, now.
func (m *Manager) rootWith(site string) (root keyRoot, err error) {
	if root.secret, err = m.cfg.Express.Secret(site); err != nil {
		return root, err
	}
	root.name, err = root.secret.Name()
	return root, err
}

// newEpoch makes another key for what comes from a peer.
func (m *Manager) newEpoch(now time.Time, p *peer, root keyRoot) error {
	e := &p.express
	e.agreed.epoch++
	k := &inKey{peer: p, root: root, epoch: e.agreed.epoch, made: now}
	var err error
	if k.opener, err = fast.NewOpener(root.secret, fast.Way{From: p.site, To: m.cfg.Site, Epoch: k.epoch}); err != nil {
		return err
	}
	if e.in != nil && e.in.root == root {
		k.before = e.in
		k.before.before = nil
	} else {
		e.since = now
	}
	next := maps.Clone(*m.keys.Load())
	for next[k.index] != nil || k.index == 0 {
		var b [4]byte
		rand.Read(b[:]) // never fails
		k.index = binary.BigEndian.Uint32(b[:])
	}
	maps.DeleteFunc(next, func(_ uint32, o *inKey) bool { return o.peer == p && o != k.before })
	next[k.index] = k
	m.keys.Store(&next)
	e.in = k
	return nil
}

// offerKey tells a peer how to seal for us, and whether it was told. Of the shared
// segments it may not know, or carry in another mode, any but one: all of them
// say it, or so many each time.
func (m *Manager) offerKey(shared []*segment, p *peer) (told bool) {
	k := p.express.in
	msg := announce.Message{Kind: announce.Express, Root: k.root.name, Epoch: k.epoch, Index: k.index, UDP: takesUDP(shared)}
	for range min(len(shared), offersAtOnce) {
		seg := shared[k.offers%len(shared)]
		k.offers++
		msg.VNI = seg.VNI
		told = m.enqueue(seg, p.site, msg) || told
	}
	return told
}

// takesUDP tells whether this machine's kernel takes UDP that is not cut, as far as
// it has said so of a segment.
func takesUDP(segments []*segment) bool {
	return slices.ContainsFunc(segments, func(s *segment) bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.attached.UDPSegments
	})
}

// due tells whether the peer is to be told of a key with which that many datagrams
// were heard. As long as there are none the word may have been lost, or have come
// before the peer had a segment: it is told again, which it answers only if it hears
// something new.
func (k *inKey) due(now time.Time, heard uint64) bool {
	switch silent := now.Sub(k.told); {
	case k.told.IsZero():
		return true
	case heard > 0:
		return false
	case now.Sub(k.made) < tellOften:
		return silent >= tellEvery
	default:
		return silent >= digestEvery
	}
}

// heardWith is how many datagrams have come with a key, those that were lost on the way
// included; 0 without one.
func (p *peer) heardWith(k *inKey) uint64 {
	if k == nil {
		return 0
	}
	p.rx.Lock()
	defer p.rx.Unlock()
	return k.opener.Heard()
}

// forgetKeys ends the use of what was agreed with a peer.
func (m *Manager) forgetKeys(p *peer) {
	e := &p.express
	e.out.Store(nil)
	if e.in == nil {
		return
	}
	e.in = nil
	next := maps.Clone(*m.keys.Load())
	maps.DeleteFunc(next, func(_ uint32, k *inKey) bool { return k.peer == p })
	m.keys.Store(&next)
}

// takeExpress is told how to seal for a peer.
func (m *Manager) takeExpress(now time.Time, from string, msg announce.Message) {
	p := m.peer(from)
	if p == nil || m.cfg.Express == nil {
		return
	}
	e := &p.express
	fresh := e.agreed.offer.Root != msg.Root || e.agreed.offer.Epoch != msg.Epoch
	e.agreed.offer = msg
	shared := m.expressSegments(from)
	if len(shared) == 0 {
		return
	}
	if fresh && e.in != nil && p.heardWith(e.in) == 0 {
		e.in.told = time.Time{} // perhaps the peer has just come to be, and knows nothing of us
	}
	m.lookAfterPeer(now, shared, p)
}

// followOffer uses the key that the peer asks for. Its word may be about a
// connection that has gone, or that this end does not have in use yet.
func (m *Manager) followOffer(p *peer, root keyRoot) error {
	e, a := &p.express, p.express.agreed
	if a.last != nil && a.last.root != root {
		a.last = nil // that connection has gone for good
	}
	o := a.offer
	if o.Kind == announce.Express && o.Root == root.name && (a.last == nil || a.last.epoch < o.Epoch) {
		sealer, err := fast.NewSealer(root.secret, fast.Way{From: m.cfg.Site, To: p.site, Epoch: o.Epoch}, o.Index)
		if err != nil {
			return err
		}
		a.last = &outKey{sealer: sealer, root: root, epoch: o.Epoch}
	}
	if e.out.Swap(a.last) != a.last && a.last != nil {
		e.helloNow()
	}
	return nil
}
