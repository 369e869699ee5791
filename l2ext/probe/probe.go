package probe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// MAC is an Ethernet address.
type MAC = [6]byte

// Key signs the probes of one gateway.
type Key [32]byte

// Type is the EtherType of probes: local experiment 1 (IEEE 802, clause 9.2.4).
const Type = 0x88b5

// Dst is where probes go: a group address that belongs to nobody, and that no
// bridge keeps to itself.
var Dst = MAC{0x03, 0x00, 0x4c, 0x48, 0x00, 0x01}

const (
	maxSite   = 63
	version   = 1
	etherLen  = 14
	headerLen = 16
	tagLen    = 16
	minFrame  = 60 // of Ethernet, without its checksum
)

// ErrOther says that a frame is no probe.
var ErrOther = errors.New("probe: another frame")

// ErrFormat says that a probe is not of this format.
var ErrFormat = errors.New("probe: bad probe")

// Probe is what a probe tells.
type Probe struct {
	Src   MAC // see SourceOf
	VNI   uint32
	Nonce uint64
	Site  string // of the gateway that sent it
}

// SourceOf makes the source address of a gateway's probes of three bytes, which
// should be random.
func SourceOf(b [3]byte) MAC { return MAC{0x0a, 0x4c, 0x48, b[0], b[1], b[2]} }

// IsSource tells whether m is the source of probes, and so no host.
func IsSource(m MAC) bool { return m[0] == 0x0a && m[1] == 0x4c && m[2] == 0x48 }

// GatewayOf is the address at which the gateway of a site takes echoes of a
// segment in mode direct. Both ends can tell it without asking.
func GatewayOf(vni uint32, site string) MAC {
	sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("longhaul gateway "+site), vni))
	return MAC{0x0e, 0x4c, sum[0], sum[1], sum[2], sum[3]}
}

// IsGateway tells whether m is the address of a gateway, and so no host.
func IsGateway(m MAC) bool { return m[0] == 0x0e && m[1] == 0x4c }

// Is tells whether a frame claims to be a probe. It needs not be whole.
func Is(frame []byte) bool {
	return len(frame) >= etherLen && frame[12] == Type>>8 && frame[13] == Type&0xff && MAC(frame[:6]) == Dst
}

// Append appends the probe, signed, as a whole frame to b. The site must have 1
// to 63 bytes.
func (p Probe) Append(b []byte, key Key) []byte {
	start := len(b)
	b = append(append(b, Dst[:]...), p.Src[:]...)
	b = binary.BigEndian.AppendUint16(b, Type)
	b = append(b, 'L', 'P', version, byte(len(p.Site)))
	b = binary.BigEndian.AppendUint32(b, p.VNI)
	b = binary.BigEndian.AppendUint64(b, p.Nonce)
	b = append(b, p.Site...)
	b = append(b, tag(key, b[start+etherLen:])...)
	return append(b, make([]byte, max(0, start+minFrame-len(b)))...)
}

// Parse reads a frame. It does not verify the tag: Verify does, once the
// sender's key is found.
func Parse(frame []byte) (Probe, error) {
	if !Is(frame) {
		return Probe{}, ErrOther
	}
	b := frame[etherLen:]
	if len(b) < headerLen {
		return Probe{}, fmt.Errorf("%d bytes: %w", len(b), ErrFormat)
	}
	n := int(b[3])
	if b[0] != 'L' || b[1] != 'P' || b[2] != version || n < 1 || n > maxSite || len(b) < headerLen+n+tagLen {
		return Probe{}, fmt.Errorf("begins with % x in %d bytes: %w", b[:4], len(b), ErrFormat)
	}
	return Probe{
		Src:   MAC(frame[6:12]),
		VNI:   binary.BigEndian.Uint32(b[4:]),
		Nonce: binary.BigEndian.Uint64(b[8:]),
		Site:  string(b[headerLen : headerLen+n]),
	}, nil
}

// Verify tells whether a frame that Parse has read is signed with the key.
func Verify(frame []byte, key Key) bool {
	b := frame[etherLen:]
	n := headerLen + int(b[3])
	return hmac.Equal(b[n:n+tagLen], tag(key, b[:n]))
}

func tag(key Key, b []byte) []byte {
	h := hmac.New(sha256.New, key[:])
	h.Write(b)
	return h.Sum(nil)[:tagLen]
}
