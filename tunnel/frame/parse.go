package frame

import "bytes"

// ParseHead parses the type and length at the start of a control frame. n is
// the length of the whole frame, head included.
func ParseHead(b []byte) (t Type, n int, err error) {
	if len(b) < HeadLen {
		return 0, 0, ErrShort
	}
	body := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if b[0] == 0 {
		return 0, 0, malformed("frame of type 0")
	}
	if body > MaxBody {
		return 0, 0, malformed("frame of type %d with %d bytes", b[0], body)
	}
	return Type(b[0]), HeadLen + body, nil
}

// Parse parses the control frame at the start of b and tells how many bytes
// it took. The frame holds no reference to b.
func Parse(b []byte) (Frame, int, error) {
	t, n, err := ParseHead(b)
	if err != nil {
		return nil, 0, err
	}
	if len(b) < n {
		return nil, 0, ErrShort
	}
	p := parser{b: b[HeadLen:n]}
	f := p.body(t)
	if p.bad || len(p.b) != 0 {
		return nil, 0, malformed("body of a frame of type %d: %d bytes", t, n-HeadLen)
	}
	return f, n, nil
}

// A parser takes fields off the front of b. Once bad, it stays bad.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n int) []byte {
	if p.bad || len(p.b) < n {
		p.bad = true
		return make([]byte, min(n, 16)) // never larger: only fixed fields come here unchecked
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

func (p *parser) u8() uint8   { return p.take(1)[0] }
func (p *parser) u16() uint16 { return be.Uint16(p.take(2)) }
func (p *parser) u64() uint64 { return be.Uint64(p.take(8)) }
func (p *parser) id16() ID    { return ID(p.take(16)) }

// nonzero takes the number of a channel or a seq, which are never 0.
func (p *parser) nonzero() uint64 {
	n := p.u64()
	p.check(n != 0)
	return n
}

func (p *parser) check(ok bool) { p.bad = p.bad || !ok }

func (p *parser) str() string {
	n := int(p.u16())
	if p.check(n <= MaxText && n <= len(p.b)); p.bad {
		return ""
	}
	return string(p.take(n))
}

// rest takes what is left, copied.
func (p *parser) rest() []byte {
	b := bytes.Clone(p.b)
	p.b = nil
	return b
}

func (p *parser) body(t Type) Frame {
	switch t {
	case TypeHello:
		return p.hello()
	case TypeCommit:
		return Commit{Set: p.id16(), Serial: p.u64()}
	case TypeRefuse:
		return Refuse{Code: p.u8(), Reason: p.str()}
	case TypeOpen:
		return p.open()
	case TypeAck:
		return p.ack()
	case TypeFin:
		return Fin{Channel: p.nonzero(), Last: p.u64()}
	case TypeReset:
		return Reset{Channel: p.nonzero(), Reason: p.str()}
	case TypeResetAck:
		return ResetAck{Channel: p.nonzero()}
	case TypeGone:
		return Gone{Channel: p.nonzero()}
	case TypeResume:
		return p.resume()
	case TypeResumeEnd:
		return ResumeEnd{Serial: p.u64()}
	case TypePing:
		return p.ping()
	case TypePong:
		return Pong{Nonce: p.u64()}
	case TypeGrow:
		return Grow{Conns: p.u8()}
	case TypeFallback:
		return Fallback{Controller: p.str(), Carrier: p.str()}
	case TypeAdvance:
		return Advance{Bytes: p.u64()}
	}
	return Unknown{Type: t, Body: p.rest()}
}

func (p *parser) hello() Hello {
	h := Hello{Role: Role(p.u8()), Epoch: p.id16(), Set: p.id16(), Held: p.id16()}
	h.Site, h.Gateway, h.Version, h.Path = p.str(), p.str(), p.str(), p.str()
	p.check(h.Role >= Priority && h.Role <= Bulk && h.Site != "")
	return h
}

func (p *parser) open() Open {
	o := Open{Channel: p.nonzero(), Kind: p.u16(), Forward: p.u8(), Back: p.u8()}
	for _, c := range []uint8{o.Forward, o.Back} {
		p.check(c == ClassUrgent || c == ClassBulk)
	}
	p.check(len(p.b) <= MaxHeader)
	o.Header = p.rest()
	return o
}

func (p *parser) ack() Ack {
	a := Ack{Channel: p.nonzero(), Flags: p.u8(), Received: p.u64(), Done: p.u64(), Window: p.u64()}
	p.check(a.Done <= a.Received && a.Flags&^FlagFin == 0)
	return a
}

func (p *parser) resume() Resume {
	r := Resume{Ack: p.ack()}
	n := int(p.u16())
	if p.check(n <= MaxRanges && len(p.b) == 16*n); p.bad {
		return r
	}
	last := r.Received
	for range n {
		g := Range{First: p.u64(), Last: p.u64()}
		// At least one seq is missing between two ranges, and none wraps around.
		p.check(g.First > last && g.First-last >= 2 && g.Last >= g.First)
		r.Ranges = append(r.Ranges, g)
		last = g.Last
	}
	return r
}

func (p *parser) ping() Ping {
	f := Ping{Nonce: p.u64(), Pad: len(p.b)}
	for _, x := range p.b {
		p.check(x == 0)
	}
	p.b = nil
	return f
}
