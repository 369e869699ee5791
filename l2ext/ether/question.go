package ether

import (
	"encoding/binary"
	"net/netip"
)

// A Question asks which MAC has an address: an ARP request or a neighbour
// solicitation.
type Question struct {
	Target netip.Addr
	Sender netip.Addr // of the host that asks; invalid for a probe
	Probe  bool       // it asks whether the address is free (RFC 5227; RFC 4862, section 5.4)
}

// opRequest is an ARP request.
const opRequest = 1

// Asked reads the question in a frame; ok is false if it is none, or if it is
// sent for another MAC than its source. A gratuitous ARP is none.
func Asked(h Header, frame []byte) (q Question, ok bool) {
	if h.Payload != HeaderLen {
		return q, false // with a VLAN tag: another network than the one we know of
	}
	body := frame[min(h.Payload, len(frame)):]
	switch h.Type {
	case TypeARP:
		return askedARP(h, body)
	case TypeIPv6:
		return askedND(h, body)
	}
	return q, false
}

func askedARP(h Header, b []byte) (q Question, ok bool) {
	if len(b) < arpLen || string(b[:6]) != string(arpHead) || b[6] != 0 || b[7] != opRequest || MAC(b[8:14]) != h.Src {
		return q, false
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if !usable(target) || sender == target {
		return q, false
	}
	if sender.IsUnspecified() {
		return Question{Target: target, Probe: true}, true
	}
	return Question{Target: target, Sender: sender}, usable(sender)
}

func askedND(h Header, b []byte) (q Question, ok bool) {
	if len(b) < ipv6Len+ndLen || b[0]>>4 != 6 || b[6] != protoICMPv6 || b[7] != 255 || b[ipv6Len] != ndSolicit {
		return q, false
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < ndLen || n > len(b)-ipv6Len {
		return q, false
	}
	sender, target := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[ipv6Len+8:ipv6Len+24]))
	if !usable(target) || sender == target {
		return q, false
	}
	if sender.IsUnspecified() {
		return Question{Target: target, Probe: true}, true
	}
	return Question{Target: target, Sender: sender}, usable(sender)
}

// Replier is who answers a question, and whom.
type Replier struct {
	MAC    MAC
	Asker  MAC
	Router bool // it is an IPv6 router
}

// AppendReply appends to b the frame by which the host that has the address
// would answer, an ARP reply or a solicited neighbour advertisement (RFC 4861,
// section 7.2.4). The question must not be a probe.
func (q Question) AppendReply(b []byte, r Replier) []byte {
	if !q.Target.Is4() {
		flags := byte(solicited | override)
		if r.Router {
			flags |= router
		}
		return appendAdvert(b, advertisement{to: r.Asker, mac: r.MAC, ip: q.Target.As16(), dst: q.Sender.As16(), flags: flags})
	}
	target, sender := q.Target.As4(), q.Sender.As4()
	b = appendHeader(b, r.Asker, r.MAC, TypeARP)
	b = append(append(b, arpHead...), 0, opReply)
	b = append(append(b, r.MAC[:]...), target[:]...)
	return append(append(b, r.Asker[:]...), sender[:]...)
}

// AppendQuestion appends to b the frame by which the host m asks q: an ARP
// request, or a neighbour solicitation to the target's group (RFC 4861, section
// 7.2.2).
func AppendQuestion(b []byte, m MAC, q Question) []byte {
	if q.Target.Is4() {
		target := q.Target.As4()
		var sender [4]byte
		if !q.Probe {
			sender = q.Sender.As4()
		}
		b = appendHeader(b, Broadcast, m, TypeARP)
		b = append(append(b, arpHead...), 0, opRequest)
		b = append(append(b, m[:]...), sender[:]...)
		return append(append(b, make([]byte, 6)...), target[:]...)
	}
	target := q.Target.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	s := icmp{to: MAC{0x33, 0x33, group[12], group[13], group[14], group[15]}, from: m, dst: group}
	if q.Probe {
		s.body = append(make([]byte, 4), target[:]...)
	} else {
		s.src = q.Sender.As16()
		s.body = append(append(append(make([]byte, 4), target[:]...), optSource, 1), m[:]...)
	}
	s.kind = ndSolicit
	return s.append(b)
}
