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
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// The kernel takes the tag off a frame that comes in before a packet socket gets it, and
// tells of it beside the frame.

// snooping is the socket of the snooper, and the VLANs that it hears beside what has no tag.
type snooping struct {
	mu     sync.Mutex // guards what follows; held across calls that set up the socket, which never wait
	f      *os.File   // nil while there is none
	vids   []uint16   // in order
	narrow bool       // it hears loop probes only
}

// use says which socket there is. It hears no VLAN yet.
func (s *snooping) use(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.f, s.vids, s.narrow = f, nil, false
}

// hearProbesOnly has the socket hear loop probes of any VLAN, and nothing else.
func (s *snooping) hearProbesOnly() error { return s.hear(func() { s.narrow = true }) }

// hearAll has it hear what it did before.
func (s *snooping) hearAll() error { return s.hear(func() { s.narrow = false }) }

// hear has the socket hear what is wished after a change; if that fails, nothing has changed.
func (s *snooping) hear(change func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	vids, narrow := s.vids, s.narrow
	change()
	if s.f == nil || slices.Equal(s.vids, vids) && s.narrow == narrow {
		return nil
	}
	filter := probeFilter
	if !s.narrow {
		filter = snoopFilterFor(s.vids)
	}
	err := attachTo(s.f, filter)
	if err != nil {
		s.vids, s.narrow = vids, narrow
	}
	return err
}

// attachTo is attachFilter for a socket that is a file.
func attachTo(f *os.File, program []bpf.Instruction) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var attached error
	err = raw.Control(func(fd uintptr) { attached = attachFilter(int(fd), program) })
	return errors.Join(err, attached)
}

// probeFilter lets through loop probes only.
var probeFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2}, // type
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: probe.Type, SkipTrue: 5},
	bpf.LoadAbsolute{Off: 0, Size: 4}, // destination
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(probe.Dst[0])<<24 | uint32(probe.Dst[1])<<16 | uint32(probe.Dst[2])<<8 | uint32(probe.Dst[3]), SkipTrue: 3},
	bpf.LoadAbsolute{Off: 4, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(probe.Dst[4])<<8 | uint32(probe.Dst[5]), SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
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
	if err := n.snooping.hear(func() { n.snooping.vids = vids }); err != nil {
		return fmt.Errorf("listening to VLANs: %w", err)
	}
	return nil
}

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
