package l2ext

import (
	"cmp"
	"os"

	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// A parcel is a frame on its way. In mode secure-fast it is as the kernel has it
// before segmentation, and may be 64 KiB long.
type parcel struct {
	frame   []byte
	message []byte       // the frame with what is left undone of it before it, see fast; nil: nothing is
	offload fast.Offload // what that is
	flooded bool         // from the LAN: the bridge has sent it to all its ports

	from vxlan.Endpoint // to the LAN: where it comes from; 0: from here
}

// parcelOf takes a message of the kernel or of a peer apart.
func parcelOf(message []byte) (parcel, error) {
	o, frame, err := fast.SplitMessage(message)
	return parcel{frame: frame, message: message, offload: o}, err
}

// packets is how many packets the frame is for the network.
func (x parcel) packets() int { return x.offload.Segments(x.frame) }

// longest is the length of the longest of them, with its Ethernet header.
func (x parcel) longest() int { return x.offload.Longest(x.frame) }

// whole is what has to be kept of it.
func (x parcel) whole() []byte {
	if x.message != nil {
		return x.message
	}
	return x.frame
}

// unwhole makes a parcel of what was kept on this segment. What the gateway
// itself has made has no message, and is of no use parked.
func (s *segment) unwhole(kept []byte) parcel {
	if s.Mode == SecureFast {
		x, _ := parcelOf(kept) // it was one
		return x
	}
	return parcel{frame: kept}
}

// asMessage is the parcel's message; scratch is used if it has to be made.
func (x parcel) asMessage(scratch []byte) (message, used []byte) {
	if x.message != nil {
		return x.message, scratch
	}
	b := append(fast.Plain(scratch[:0]), x.frame...)
	return b, b
}

// messageLen is the length of the parcel's message.
func (x parcel) messageLen() int {
	if x.message != nil {
		return len(x.message)
	}
	return fast.OffloadLen + len(x.frame)
}

// toLAN gives a frame to the segment's bridge by its overlay port, with the tag of the
// segment's VLAN. It returns the scratch buffer.
func (m *Manager) toLAN(seg *segment, x parcel, scratch []byte) ([]byte, error) {
	if seg.Mode == SecureFast {
		port := seg.port()
		if port == nil {
			return scratch, os.ErrClosed
		}
		if seg.VLAN != 0 {
			b := x.asTagged(seg.VLAN, scratch)
			return b, port.Write(b)
		}
		b, scratch := x.asMessage(scratch)
		return scratch, port.Write(b)
	}
	p := vxlan.Packet{VNI: seg.VNI, From: cmp.Or(x.from, vxlan.Everyone), To: vxlan.Self, Frame: x.frame}
	at := 0 // of the packet in scratch; before it is the frame, if it had to be made
	if seg.VLAN != 0 {
		scratch = ether.AppendTagged(scratch[:0], x.frame, seg.VLAN)
		p.Frame, at = scratch, len(scratch)
	}
	scratch = p.Append(scratch[:at])
	return scratch, m.cfg.Host.WritePacket(scratch[at:])
}

// port is the overlay port of mode secure-fast, nil while there is none.
func (s *segment) port() Port {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.attached.Port
}
