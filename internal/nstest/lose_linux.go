package nstest

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What loses needs beside the instructions of tag_linux.go.
const (
	modImm32   = 0x94 // r %= imm, of 32 bits
	jumpNotLow = 0x35 // if r >= imm skip off
	random     = 7    // helper: a random number of 32 bits
)

// loses drops so many of a thousand frames, at random.
func loses(ofThousand int) []insn {
	return []insn{
		{code: callOf, imm: random}, {code: modImm32, regs: 0, imm: 1000}, {code: jumpNotLow, regs: 0, off: 2, imm: int32(ofThousand)},
		{code: movImm, regs: 0, imm: shot}, {code: exit},
		{code: movImm, regs: 0, imm: pass}, {code: exit},
	}
}

// Lose has a device lose so many of a thousand frames that come to it, in place of those that
// it lost before. It is not for a device that has a Tag.
func (n *NS) Lose(dev string, ofThousand int) error {
	l, err := n.link(dev)
	if err != nil {
		return err
	}
	hook := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := n.nl.QdiscDel(hook); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // there is none
		return wrap("losing frames of", dev, err)
	}
	if err := n.nl.QdiscAdd(hook); err != nil {
		return wrap("losing frames of", dev, err)
	}
	return wrap("losing frames of", dev, n.filter(l, netlink.HANDLE_MIN_INGRESS, loses(ofThousand)))
}
