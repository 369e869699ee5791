package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext/ether"
)

// The kernel takes the tag off a frame that comes in before a packet socket gets it, and
// tells of it beside the frame.

// snooping is the socket of the snooper, and the VLANs that it hears beside what has no tag.
type snooping struct {
	mu   sync.Mutex // guards what follows; held across calls that set up the socket, which never wait
	f    *os.File   // nil while there is none
	vids []uint16   // in order
}

// use says which socket there is. It hears no VLAN yet.
func (s *snooping) use(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f, s.vids = f, nil
}

// tuneSnoop has the snooper's socket hear the VLANs of the segments there are.
func (n *Net) tuneSnoop() error {
	n.mu.RLock()
	var vids []uint16
	for _, a := range n.segments {
		if v := a.lan.vlan; v != 0 {
			vids = append(vids, v)
		}
		if v := a.lan.inside(); v != 0 {
			vids = append(vids, v)
		}
	}
	n.mu.RUnlock()
	slices.Sort(vids)
	vids = slices.Compact(vids)
	s := &n.snooping
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil || slices.Equal(s.vids, vids) {
		return nil
	}
	raw, err := s.f.SyscallConn()
	if err != nil {
		return fmt.Errorf("listening to VLANs: %w", err)
	}
	controlled := raw.Control(func(fd uintptr) { err = hearVLANs(int(fd), vids) })
	if err = errors.Join(controlled, err); err != nil {
		return fmt.Errorf("listening to VLANs: %w", err)
	}
	s.vids = vids
	return nil
}

// hearVLANs has a socket hear what snoopFilter lets through of some VLANs as well.
func hearVLANs(fd int, vids []uint16) error { return attachFilter(fd, snoopFilterFor(vids)) }

// maxHeardVLANs are picked by the filter: a socket's may have 4096 instructions. With
// more, all are heard, and most are thrown away here.
const maxHeardVLANs = 256

// snoopFilterFor is snoopFilter for what has no tag, one with only a priority, or one of these.
func snoopFilterFor(vids []uint16) []bpf.Instruction {
	if len(vids) > maxHeardVLANs {
		return snoopFilter
	}
	toKinds := func(skip int) bpf.Instruction { return bpf.Jump{Skip: uint32(skip)} }
	tags := append([]uint16{0}, vids...)
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		toKinds(2 + 2*len(tags) + 1),
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: vidMask},
	}
	for i, vid := range tags {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(vid), SkipTrue: 1}, toKinds(2*(len(tags)-1-i)+1))
	}
	return append(append(program, bpf.RetConstant{Val: 0}), snoopFilter...)
}

// vidMask is which bits of a tag are the number of its VLAN (IEEE 802.1Q, section 9.6).
const vidMask = 0xfff

// noVLAN is of frames with a tag that is not 802.1Q's: no segment has it.
const noVLAN = ether.MaxVID + 1

// vidIn tells of which VLAN a frame was, from what the kernel tells beside it; 0 is one
// without a tag, or with only a priority.
func vidIn(told []byte) uint16 {
	if len(told) == 0 {
		return 0
	}
	messages, _ := unix.ParseSocketControlMessage(told) // the kernel's own
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < auxLen {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&auxHasTag == 0 {
			return 0
		}
		if status&auxHasTagTyp != 0 && binary.NativeEndian.Uint16(m.Data[auxTagType:]) != unix.ETH_P_8021Q {
			return noVLAN
		}
		return binary.NativeEndian.Uint16(m.Data[auxTag:]) & vidMask
	}
	return 0
}
