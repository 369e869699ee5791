package pki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kinds of message.
const (
	kindEnrol   byte = iota + 1 // Gateway, CSR, Addrs
	kindRenew                   // CSR
	kindSync                    // revocation list, may be empty
	kindCert                    // answer: certificate, CA, revocation list, peers
	kindList                    // answer: revocation list, may be empty
	kindRefusal                 // answer: Code (1), text
)

const (
	magic      = "LHP1"
	headerSize = 4 + 1 + 4
	// maxBody holds the largest revocation list (47 KiB) and peer list
	// (64 peers with 8 addresses of 255 bytes each: 132 KiB, of which no real
	// fleet has a tenth).
	maxBody  = 256 << 10
	maxPeers = 64
	maxDER   = 4096 // bytes of a certificate or CSR; ours have some 500
	maxText  = 512  // bytes of a refusal's reason
)

// Peer is a site that a joiner can reach.
type Peer struct {
	Site  string
	Addrs []string // host:port
}

// writeMessage sends one frame in one Write.
func writeMessage(w io.Writer, kind byte, body []byte) error {
	if len(body) > maxBody {
		return fmt.Errorf("message of %d bytes, limit %d", len(body), maxBody)
	}
	b := append([]byte(magic), kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// readMessage reads one frame. A length over the limit is refused before
// anything is allocated for it.
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	if string(head[:4]) != magic {
		return 0, nil, fmt.Errorf("message begins with %x, want %q", head[:4], magic)
	}
	n := binary.BigEndian.Uint32(head[5:])
	if n > maxBody {
		return 0, nil, fmt.Errorf("message of %d bytes, limit %d", n, maxBody)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}

// enrolRequest asks for the first certificate.
type enrolRequest struct {
	gateway string
	csr     []byte
	addrs   []string // where the joiner will listen; may be none
}

func (m enrolRequest) append(b []byte) []byte {
	b = appendString8(b, m.gateway)
	b = appendBytes32(b, m.csr)
	return appendAddrs(b, m.addrs)
}

func parseEnrol(b []byte) (m enrolRequest, err error) {
	r := reader{b: b}
	m.gateway = r.string8()
	m.csr = r.bytes32(maxDER)
	m.addrs = r.addrs()
	if err := r.end(); err != nil {
		return m, err
	}
	if len(m.addrs) > 0 {
		err = checkAddrs(m.addrs)
	}
	return m, errors.Join(CheckName(m.gateway), err)
}

// certAnswer carries a signed certificate and what a joiner needs beside it.
type certAnswer struct {
	cert, ca []byte // DER
	list     []byte // encoded revocations; empty: none yet
	peers    []Peer
}

func (m certAnswer) append(b []byte) []byte {
	b = appendBytes32(b, m.cert)
	b = appendBytes32(b, m.ca)
	b = appendBytes32(b, m.list)
	b = append(b, byte(len(m.peers)))
	for _, p := range m.peers {
		b = appendString8(b, p.Site)
		b = appendAddrs(b, p.Addrs)
	}
	return b
}

func parseCert(b []byte) (m certAnswer, err error) {
	r := reader{b: b}
	m.cert = r.bytes32(maxDER)
	m.ca = r.bytes32(maxDER)
	m.list = r.bytes32(maxBody)
	n := int(r.byte())
	if n > maxPeers {
		return m, fmt.Errorf("%d peers, limit %d", n, maxPeers)
	}
	for range n {
		p := Peer{r.string8(), r.addrs()}
		if r.err != nil {
			return m, r.err
		}
		if err := errors.Join(CheckName(p.Site), checkAddrs(p.Addrs)); err != nil {
			return m, err
		}
		m.peers = append(m.peers, p)
	}
	return m, r.end()
}

// refusals are the reasons that the asking side can decide by. The code is
// the place in the list plus 1; 0 is any other reason. Append only.
func refusals() []error {
	return []error{ErrTokenUsed, ErrTokenExpired, ErrRevoked, ErrNotFounder}
}

func appendRefusal(b []byte, reason error) []byte {
	code := byte(0)
	for i, err := range refusals() {
		if errors.Is(reason, err) {
			code = byte(i + 1)
		}
	}
	text := reason.Error()
	return append(append(b, code), text[:min(len(text), maxText)]...)
}

// parseRefusal gives back the reason, as an error.
func parseRefusal(b []byte) error {
	if len(b) == 0 || len(b) > 1+maxText {
		return fmt.Errorf("refusal of %d bytes", len(b))
	}
	if list := refusals(); b[0] > 0 && int(b[0]) <= len(list) {
		return fmt.Errorf("peer refuses: %w", list[b[0]-1])
	}
	return fmt.Errorf("peer refuses: %q", b[1:])
}

func appendString8(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

func appendBytes32(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

func appendAddrs(b []byte, addrs []string) []byte {
	b = append(b, byte(len(addrs)))
	for _, addr := range addrs {
		b = appendString8(b, addr)
	}
	return b
}

var errShort = errors.New("is cut short")

// reader takes a message apart. After an error all it gives is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (r *reader) string8() string { return string(r.take(int(r.byte()))) }

func (r *reader) bytes32(limit int) []byte {
	n := r.uint32()
	if int64(n) > int64(limit) {
		r.fail(fmt.Errorf("field of %d bytes, limit %d", n, limit))
		return nil
	}
	return r.take(int(n))
}

func (r *reader) addrs() []string {
	n := int(r.byte())
	if n > maxAddrs {
		r.fail(fmt.Errorf("%d addresses, limit %d", n, maxAddrs))
	}
	var addrs []string
	for range n {
		if r.err != nil {
			return nil
		}
		addrs = append(addrs, r.string8())
	}
	return addrs
}

// end tells whether all went well and nothing is left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return fmt.Errorf("has %d bytes too many", len(r.b))
	}
	return r.err
}
