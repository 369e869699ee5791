package tunnel

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// A connection uses another ID after 10 000 packets, eight a second at 1 Gbit/s, and
// quic-go, which makes random ones, does not look whether one is in use: of those with
// its four bytes two meet within some weeks, and the connection that gets what is
// another's dies. These are as long, and none comes again before all 2^32 have been
// given out. To others they look random (RFC 9000, section 5.1).
const cidLen = 4

// connIDs gives a socket's connections their IDs.
type connIDs struct {
	seed maphash.Seed
	n    atomic.Uint32
}

func newConnIDs() *connIDs { return &connIDs{seed: maphash.MakeSeed()} }

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (c *connIDs) ConnectionIDLen() int { return cidLen }

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (c *connIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	return quic.ConnectionIDFromBytes(binary.BigEndian.AppendUint32(nil, c.scatter(c.n.Add(1)))), nil
}

// scatter maps the numbers of 32 bits to each other, each to another one: a Feistel
// network (Luby and Rackoff, 1988) of four rounds over halves of 16 bits.
func (c *connIDs) scatter(n uint32) uint32 {
	left, right := uint16(n>>16), uint16(n)
	for round := range byte(4) {
		mixed := maphash.Bytes(c.seed, []byte{round, byte(right >> 8), byte(right)})
		left, right = right, left^uint16(mixed)
	}
	return uint32(left)<<16 | uint32(right)
}
