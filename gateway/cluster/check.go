package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"
)

// memberlist v0.7.0, net.go: the first byte of each message.
const (
	msgPing     = 0
	msgIndirect = 1
	msgAck      = 2
	msgSuspect  = 3
	msgAlive    = 4
	msgDead     = 5
	msgPushPull = 6
	msgCompound = 7
	msgNack     = 11
	msgCRC      = 12
	msgErr      = 13
)

const (
	// maxPacket is what UDPBufferSize may grow to with the checksum and the
	// heads that memberlist does not count. Every link carries 1242 bytes.
	maxPacket = 1200
	// maxMembers bounds a fleet, and with it a hostile gateway's inventions.
	maxMembers = 512
	// maxMessage holds the state of maxMembers nodes, 500 bytes each.
	maxMessage = 256 << 10
)

var errKind = errors.New("message of a kind that is not used here")

// checkPacket refuses packets that memberlist had better not see. It does not
// look at the fields of messages: memberlist refuses wrong ones.
func checkPacket(b []byte) error {
	if len(b) > maxPacket {
		return fmt.Errorf("packet of %d bytes, limit %d", len(b), maxPacket)
	}
	if len(b) > 5 && b[0] == msgCRC {
		b = b[5:]
	}
	if len(b) > 0 && b[0] == msgCompound {
		return checkCompound(b[1:])
	}
	return checkKind(b)
}

// checkCompound looks at | N (1) | N times Len (2) | N messages |. memberlist
// makes none within another.
func checkCompound(b []byte) error {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return errPack
	}
	n := int(b[0])
	lens, b := b[1:1+2*n], b[1+2*n:]
	for i := range n {
		l := int(binary.BigEndian.Uint16(lens[2*i:]))
		if l > len(b) {
			return errPack
		}
		if err := checkKind(b[:l]); err != nil {
			return err
		}
		b = b[l:]
	}
	return nil
}

func checkKind(b []byte) error {
	if len(b) == 0 {
		return errPack
	}
	switch b[0] {
	case msgPing, msgIndirect, msgAck, msgSuspect, msgAlive, msgDead, msgNack:
		return nil
	}
	return fmt.Errorf("%w: %d", errKind, b[0])
}

// checkMessage refuses messages of a stream that memberlist had better not see.
func checkMessage(b []byte) error {
	if len(b) == 0 {
		return errPack
	}
	switch b[0] {
	case msgPing, msgAck, msgErr:
		return nil
	case msgPushPull:
		_, err := parseState(b)
		return err
	}
	return fmt.Errorf("%w: %d", errKind, b[0])
}

// nodeState is what memberlist knows of a node.
type nodeState struct {
	name        string
	state       memberlist.NodeStateType
	incarnation uint32
	meta        []byte
}

// parseState reads a push/pull message: | 6 | head | nodes |.
func parseState(b []byte) ([]nodeState, error) {
	if len(b) == 0 || b[0] != msgPushPull {
		return nil, errPack
	}
	p := packed{b: b[1:]}
	var count, user uint64
	p.fields(func(key string, v scalar) {
		switch key {
		case "Nodes":
			count = v.n
		case "UserStateLen":
			user = v.n
		}
	})
	if p.err != nil {
		return nil, p.err
	}
	if count > maxMembers || user > 0 {
		return nil, fmt.Errorf("state of %d nodes (limit %d) with %d bytes of user state (limit 0)", count, maxMembers, user)
	}
	nodes := make([]nodeState, count)
	for i := range nodes {
		p.fields(nodes[i].set)
	}
	if p.err == nil && len(p.b) > 0 {
		p.fail()
	}
	return nodes, p.err
}

func (n *nodeState) set(key string, v scalar) {
	switch key {
	case "Name":
		n.name = string(v.b)
	case "State":
		n.state = memberlist.NodeStateType(v.n)
	case "Incarnation":
		n.incarnation = uint32(v.n)
	case "Meta":
		n.meta = v.b
	}
}
