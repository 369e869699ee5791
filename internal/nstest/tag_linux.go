package nstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Two programs stand in for a VLAN device, which not all kernels on which tests run have
// (CONFIG_VLAN_8021Q): they work on the frames of one device, at its clsact hooks.

// An insn is one instruction of eBPF (include/uapi/linux/bpf.h, struct bpf_insn).
type insn struct {
	code byte
	regs byte // destination, and source in the upper half
	off  int16
	imm  int32
}

// The instructions that are needed.
const (
	movImm   = 0xb7 // r = imm
	andImm32 = 0x54 // r &= imm, of 32 bits
	loadWord = 0x61 // dst = *(u32 *)(src + off)
	jumpNot  = 0x55 // if r != imm skip off
	callOf   = 0x85 // helper imm; r0 = its answer
	exit     = 0x95
)

// Helpers, fields of struct __sk_buff, and verdicts (include/uapi/linux/bpf.h, pkt_cls.h).
const (
	vlanPush = 18 // of ctx in r1, type in network order in r2, tag in r3
	vlanPop  = 19
	atTag    = 24 // vlan_tci
	pass     = 0  // TC_ACT_OK
	shot     = 2  // TC_ACT_SHOT
)

// pushes gives each frame the tag of a VLAN.
func pushes(vid uint16) []insn {
	kind := binary.NativeEndian.Uint16([]byte{0x81, 0})
	return []insn{
		{code: movImm, regs: 2, imm: int32(kind)}, {code: movImm, regs: 3, imm: int32(vid)},
		{code: callOf, imm: vlanPush}, {code: movImm, regs: 0, imm: pass}, {code: exit},
	}
}

// pops takes the tag off frames of a VLAN, and drops all others.
func pops(vid uint16) []insn {
	return []insn{
		{code: loadWord, regs: 2 | 1<<4, off: atTag}, {code: andImm32, regs: 2, imm: 0xfff}, {code: jumpNot, regs: 2, off: 3, imm: int32(vid)},
		{code: callOf, imm: vlanPop}, {code: movImm, regs: 0, imm: pass}, {code: exit},
		{code: movImm, regs: 0, imm: shot}, {code: exit},
	}
}

// Tag makes a device one of a VLAN, as a host has it: what it sends has the tag, what it
// gets loses it, and what it gets of other VLANs, or without a tag, is dropped.
func (n *NS) Tag(dev string, vid uint16) error {
	l, err := n.link(dev)
	if err != nil {
		return err
	}
	if err := n.nl.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}); err != nil {
		return wrap("tagging", dev, err)
	}
	return errors.Join(
		wrap("tagging", dev, n.filter(l, netlink.HANDLE_MIN_EGRESS, pushes(vid))),
		wrap("tagging", dev, n.filter(l, netlink.HANDLE_MIN_INGRESS, pops(vid))))
}

// filter has a program judge what passes a hook of a device.
func (n *NS) filter(l netlink.Link, hook uint32, program []insn) error {
	fd, err := loadProgram(program)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // the filter holds the program
	return n.nl.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: l.Attrs().Index, Parent: hook, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          fd, Name: "vlan", DirectAction: true,
	})
}

// loadProgram gives a program to the kernel.
func loadProgram(program []insn) (fd int, err error) {
	license, log := []byte("GPL\x00"), make([]byte, 1<<14)
	attr := struct { // union bpf_attr, as far as BPF_PROG_LOAD of Linux 4.8 needs it
		kind, count             uint32
		insns, license          uint64
		logLevel, logSize       uint32
		log                     uint64
		kernelVersion, progFlag uint32
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(program)),
		insns: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
		logLevel: 1, logSize: uint32(len(log)), log: uint64(uintptr(unsafe.Pointer(&log[0]))),
	}
	var pins runtime.Pinner
	defer pins.Unpin()
	pins.Pin(&program[0])
	pins.Pin(&license[0])
	pins.Pin(&log[0])
	r, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return 0, fmt.Errorf("loading a program: %w: %s", errno, unix.ByteSliceToString(log))
	}
	return int(r), nil
}
