package tunnel

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// A socket has few connections, so that their IDs can be short, which each packet
// has; but a connection uses another after 10 000 packets, eight a second at 1
// Gbit/s, and quic-go does not look whether a random one is in use: of those with
// its four bytes two meet within some weeks, and the connection that gets what is
// another's dies. These are 3 bytes long and come again after 2^24, which takes 22
// days at that rate, while none is in use for more than a day: also what carries
// nothing but pings has sent 40 000 packets by then. To others they look random
// (RFC 9000, section 5.1).

const cidLen = 3

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
	x := c.scatter(c.n.Add(1))
	return quic.ConnectionIDFromBytes([]byte{byte(x >> 16), byte(x >> 8), byte(x)}), nil
}

// scatter maps the numbers of 24 bits to each other, each to another one: a Feistel
// network (Luby and Rackoff, 1988) of four rounds over halves of 12 bits.
func (c *connIDs) scatter(n uint32) uint32 {
	const half = 1<<12 - 1
	left, right := n>>12&half, n&half
	for round := range byte(4) {
		mixed := maphash.Bytes(c.seed, []byte{round, byte(right >> 8), byte(right)})
		left, right = right, left^uint32(mixed)&half
	}
	return left<<12 | right
}
