package cluster

import (
	"errors"
	"fmt"
)

// Meta is what a gateway tells all others of itself. Encoded:
//
//	| Format 1 (1) | Len (1) Version | Len (1) Endpoint | Segments (8) |
type Meta struct {
	Version  string  // of longhauld, at most 64 bytes
	Endpoint string  // host:port of its link as others reach it, at most 255 bytes; may be empty
	Segments [8]byte // digest of its segments' names and VNIs; all zero: none
}

const (
	metaFormat  = 1
	maxVersion  = 64
	maxEndpoint = 255
)

// Append appends the encoding, which is at most 330 bytes: memberlist's limit
// is 512.
func (m Meta) Append(b []byte) []byte {
	b = append(b, metaFormat, byte(len(m.Version)))
	b = append(b, m.Version...)
	b = append(b, byte(len(m.Endpoint)))
	b = append(b, m.Endpoint...)
	return append(b, m.Segments[:]...)
}

func (m Meta) check() error {
	if len(m.Version) > maxVersion || len(m.Endpoint) > maxEndpoint {
		return fmt.Errorf("version of %d bytes (limit %d), endpoint of %d (limit %d)",
			len(m.Version), maxVersion, len(m.Endpoint), maxEndpoint)
	}
	for _, c := range []byte(m.Version + m.Endpoint) {
		if c <= ' ' || c >= 0x7f { // it will be printed on terminals
			return fmt.Errorf("byte %#x in version or endpoint", c)
		}
	}
	return nil
}

var errMeta = errors.New("meta is malformed")

// ParseMeta reads an encoded Meta, which must be all of b.
func ParseMeta(b []byte) (m Meta, err error) {
	if len(b) < 1 || b[0] != metaFormat {
		return m, errMeta
	}
	version, b, ok1 := cutString(b[1:])
	endpoint, b, ok2 := cutString(b)
	if !ok1 || !ok2 || len(b) != len(m.Segments) {
		return m, errMeta
	}
	m = Meta{Version: version, Endpoint: endpoint, Segments: [8]byte(b)}
	return m, m.check()
}

// cutString takes a string with its length in one byte off the front.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}
