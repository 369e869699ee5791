package announce

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Parse reads one message, which is all of b. The message shares nothing with b.
func Parse(b []byte) (Message, error) {
	if len(b) < headerLen {
		return Message{}, ErrShort
	}
	if len(b) > MaxMessage {
		return Message{}, fmt.Errorf("%d bytes: %w", len(b), ErrFormat)
	}
	if b[0] != 'L' || b[1] != '2' || b[2] != version {
		return Message{}, fmt.Errorf("begins with % x: %w", b[:3], ErrFormat)
	}
	m := Message{Kind: Kind(b[3]), VNI: binary.BigEndian.Uint32(b[4:])}
	if m.VNI < 1 || m.VNI > maxVNI {
		return Message{}, fmt.Errorf("VNI %d: %w", m.VNI, ErrFormat)
	}
	r := reader{b: b[headerLen:]}
	r.body(&m)
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%d bytes follow: %w", len(r.b), ErrFormat)
	}
	if r.err != nil {
		return Message{}, r.err
	}
	return m, nil
}

// A reader takes values off the front of b until one is missing or wrong;
// after that it returns zeros, and err says why.
type reader struct {
	b   []byte
	err error
}

func (r *reader) body(m *Message) {
	switch m.Kind {
	case Update:
		n := int(r.number(2))
		if n > MaxRecords {
			r.fail(fmt.Errorf("%d records: %w", n, ErrFormat))
		}
		for i := 0; i < n && r.err == nil; i++ {
			m.Records = append(m.Records, r.record())
		}
	case Digest:
		m.Count, m.Sum = uint32(r.number(4)), r.number(8)
	case Request:
	case Prepare:
		m.Job, m.Site = r.text(), r.text()
		r.fail(checkNames(m.Site, m.Job))
		m.MACs = r.macs()
	case Clear, Frozen:
		m.MACs = r.macs()
	case Arrived:
		r.arrived(m)
	case Key:
		copy(m.Key[:], r.take(KeyLen))
		m.Time = int64(r.number(8))
		copy(m.Bridge[:], r.take(len(m.Bridge)))
	case Express:
		r.express(m)
	case Loop:
		m.Site = r.text()
		r.fail(checkNames(m.Site, ""))
	case Cable:
		m.Site, m.Nonce = r.text(), r.number(8)
		r.fail(checkNames(m.Site, ""))
	case Way:
		r.way(m)
	case Members:
		r.members(m)
	case Terms:
		r.terms(m)
	case Trip:
		m.Site, m.RTT = r.text(), time.Duration(r.number(4))*time.Microsecond
		r.fail(checkNames(m.Site, ""))
	case Over:
		m.Job = r.text()
		r.fail(checkJob(m.Job))
	case Able:
		m.Abilities = uint32(r.number(4))
	default:
		r.fail(fmt.Errorf("kind %d: %w", m.Kind, ErrFormat))
	}
}

func (r *reader) macs() (macs []MAC) {
	n := int(r.number(2))
	if n > MaxMACs {
		r.fail(fmt.Errorf("%d MACs: %w", n, ErrFormat))
	}
	for i := 0; i < n && r.err == nil; i++ {
		macs = append(macs, r.mac())
	}
	return macs
}

func (r *reader) arrived(m *Message) {
	m.Job = r.text()
	m.After = time.Duration(r.number(8))
	m.Held, m.Lost = uint32(r.number(4)), uint32(r.number(4))
	if len(m.Job) > MaxJob || m.After < 0 {
		r.fail(fmt.Errorf("job of %d bytes arrived after %v: %w", len(m.Job), m.After, ErrFormat))
	}
}

func (r *reader) way(m *Message) {
	if m.Mode = r.text(); r.err == nil {
		r.fail(checkMode(m.Mode))
	}
	if r.err == nil && len(r.b) > 0 && r.b[0] == 0 {
		r.take(1)
		return
	}
	if ip := r.ip(); r.err == nil {
		m.Addr = ip
		r.fail(checkIP(ip))
	}
}

func (r *reader) express(m *Message) {
	m.Root, m.Epoch, m.Index = r.number(8), r.number(8), uint32(r.number(4))
	flags := r.number(1)
	if flags&^flagUDP != 0 {
		r.fail(fmt.Errorf("flags %#x: %w", flags, ErrFormat))
	}
	m.UDP = flags&flagUDP != 0
}

func (r *reader) members(m *Message) {
	flags := r.number(1)
	if flags&^(flagIGMP|flagMLD|flagMore) != 0 {
		r.fail(fmt.Errorf("flags %#x: %w", flags, ErrFormat))
	}
	m.IGMP, m.MLD, m.More = flags&flagIGMP != 0, flags&flagMLD != 0, flags&flagMore != 0
	n := int(r.number(2))
	if n > MaxGroups {
		r.fail(fmt.Errorf("%d groups: %w", n, ErrFormat))
	}
	for i := 0; i < n && r.err == nil; i++ {
		if b := r.take(6); b != nil {
			m.Groups = append(m.Groups, MAC(b))
			r.fail(checkGroup(MAC(b)))
		}
	}
}

func (r *reader) terms(m *Message) {
	n := int(r.number(1))
	if n > MaxTerms {
		r.fail(fmt.Errorf("%d terms: %w", n, ErrFormat))
	}
	for i := 0; i < n && r.err == nil; i++ {
		m.Terms = append(m.Terms, Term{r.text(), r.text()})
	}
	if r.err == nil {
		r.fail(checkTerms(m.Terms))
	}
}

func (r *reader) record() Record {
	rec := Record{MAC: r.mac(), Cause: Cause(r.number(1))}
	flags := r.number(1)
	if flags&^flagRouter != 0 {
		r.fail(fmt.Errorf("flags %#x: %w", flags, ErrFormat))
	}
	rec.Router = flags&flagRouter != 0
	rec.Seq, rec.Site, rec.Job = r.number(8), r.text(), r.text()
	n := int(r.number(1))
	if n > MaxIPs {
		r.fail(fmt.Errorf("%d addresses: %w", n, ErrFormat))
	}
	for i := 0; i < n && r.err == nil; i++ {
		rec.IPs = append(rec.IPs, r.ip())
	}
	if r.err == nil {
		r.fail(rec.check())
	}
	return rec
}

func (r *reader) ip() netip.Addr {
	switch v := r.number(1); {
	case r.err != nil:
	case v == 4:
		if b := r.take(4); b != nil {
			return netip.AddrFrom4([4]byte(b))
		}
	case v == 6:
		if b := r.take(16); b != nil {
			return netip.AddrFrom16([16]byte(b))
		}
	default:
		r.fail(fmt.Errorf("address of version %d: %w", v, ErrFormat))
	}
	return netip.Addr{}
}

func (r *reader) mac() (m MAC) {
	if b := r.take(6); b != nil {
		m = MAC(b)
		r.fail(checkMAC(m))
	}
	return m
}

func (r *reader) text() string { return string(r.take(int(r.number(1)))) }

func (r *reader) number(n int) (v uint64) {
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = ErrShort
	}
	if r.err != nil {
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}
