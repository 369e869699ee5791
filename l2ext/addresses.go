package l2ext

import (
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// note adds to a binding of this site what its host has said of itself. Of
// another MAC of this site it takes the address away: others must not be told
// of two.
func (t *table) note(now time.Time, m MAC, c ether.Claim) (changes []announce.Record) {
	b := t.byMAC[m]
	if b == nil || b.withdrawn() || b.rec.Site != t.self || t.knows(m, c) {
		return nil
	}
	r := b.rec
	r.Seq++
	r.Router = r.Router || c.Router
	if c.IP.IsValid() && !slices.Contains(r.IPs, c.IP) {
		if from, other := t.holder(c.IP); other != nil {
			if old, ok := t.strip(now, taking{c.IP, from}); ok {
				changes = append(changes, old)
			}
		}
		r.IPs = append(slices.Clone(r.IPs), c.IP)
		if len(r.IPs) > announce.MaxIPs {
			r.IPs = r.IPs[1:] // the one that was seen first
		}
	}
	t.set(now, b, r)
	return append(changes, r)
}

// taking is an address that goes to another MAC.
type taking struct {
	ip   netip.Addr
	from MAC
}

// takings lists the addresses that a record takes from other MACs.
func (t *table) takings(r announce.Record) (all []taking) {
	var known []netip.Addr
	if b := t.byMAC[r.MAC]; b != nil {
		known = b.rec.IPs
	}
	for _, ip := range r.IPs {
		if slices.Contains(known, ip) {
			continue
		}
		from, b := t.holder(ip)
		if b == nil { // its site may have let it go before this record came
			f, ok := t.freed[ip]
			if !ok {
				continue
			}
			from = f.from
		}
		if from != r.MAC {
			all = append(all, taking{ip, from})
		}
	}
	return all
}

// strip takes an address from a MAC of this site; that of another site does so
// itself.
func (t *table) strip(now time.Time, k taking) (r announce.Record, ok bool) {
	b := t.byMAC[k.from]
	if b == nil || b.withdrawn() || b.rec.Site != t.self || !slices.Contains(b.rec.IPs, k.ip) {
		return r, false
	}
	r = b.rec
	r.Seq++
	r.IPs = slices.DeleteFunc(slices.Clone(r.IPs), func(have netip.Addr) bool { return have == k.ip })
	t.set(now, b, r)
	return r, true
}

// knows tells whether a sighting at this site would change nothing.
func (t *table) knows(m MAC, c ether.Claim) bool {
	b := t.byMAC[m]
	return b != nil && b.rec.Site == t.self && !b.withdrawn() && (b.rec.Router || !c.Router) &&
		(!c.IP.IsValid() || slices.Contains(b.rec.IPs, c.IP))
}

// An address that was let go is remembered for freedFor: the record of the one who
// has taken it comes from another site, and may come later. maxFreed bounds them.
const (
	freedFor = 10 * time.Second
	maxFreed = 4096
)

type freed struct {
	from MAC
	at   time.Time
}

// index follows the replacement of a record. An address belongs to the MAC that
// has claimed it last.
func (t *table) index(now time.Time, old, r announce.Record) {
	m := MAC(r.MAC)
	gone := r.Cause == announce.Withdrawn
	for _, ip := range old.IPs {
		if t.byIP[ip] != m || !gone && slices.Contains(r.IPs, ip) {
			continue
		}
		delete(t.byIP, ip)
		if len(t.freed) < maxFreed {
			t.freed[ip] = freed{m, now}
		}
	}
	if gone {
		return
	}
	for _, ip := range r.IPs {
		if _, taken := t.byIP[ip]; !taken || !slices.Contains(old.IPs, ip) {
			t.byIP[ip] = m
			delete(t.freed, ip)
		}
	}
}

// holder finds the binding of the host that has an address, or nil.
func (t *table) holder(ip netip.Addr) (MAC, *binding) {
	m, ok := t.byIP[ip]
	if b := t.byMAC[m]; ok && b != nil && !b.withdrawn() {
		return m, b
	}
	return MAC{}, nil
}
