package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

// In mode direct the bridge answers questions for hosts of other sites, and lets
// none through that has its answer: by neighbours of the bridge device, which
// have our protocol number as their mark, and neigh_suppress on our ports
// (br_do_proxy_suppress_arp, net/bridge/br_arp_nd_proxy.c).

// neighbourMark is the protocol of neighbours made here (rtm_protocol). No
// daemon of include/uapi/linux/rtnetlink.h has it.
const neighbourMark = 'L'

// neighbourState is one of the kernel's entries.
type neighbourState struct {
	l2ext.Neighbour
	ours  bool
	fixed bool // by an operator: it is left alone
}

// setNeighbours makes the wished neighbours of a bridge, and no others of ours but those that
// stay says are to; nil: none.
func (n *Net) setNeighbours(bridge int, wished []l2ext.Neighbour, stay func(l2ext.MAC) bool) error {
	have, err := n.neighbours(bridge)
	if err != nil {
		return err
	}
	var reqs []*nl.NetlinkRequest
	for _, w := range wished {
		h, known := have[w.IP]
		if !h.fixed && !(known && h.ours && h.Neighbour == w) {
			reqs = append(reqs, neighbourEntry(bridge, unix.RTM_NEWNEIGH, w))
		}
		delete(have, w.IP)
	}
	for _, h := range have {
		if h.ours && (stay == nil || !stay(h.MAC)) {
			reqs = append(reqs, neighbourEntry(bridge, unix.RTM_DELNEIGH, h.Neighbour))
		}
	}
	if len(reqs) == 0 {
		return nil
	}
	var errs []error
	for i, err := range n.raw.executeAll(reqs) {
		if err != nil && !(gone(reqs[i]) && notFound(err)) {
			errs = append(errs, fmt.Errorf("neighbours of the bridge: %w", err))
		}
	}
	return errors.Join(errs[:min(len(errs), maxErrors)]...)
}

// neighbours lists those of a device. The library does not tell the protocol.
func (n *Net) neighbours(device int) (map[netip.Addr]neighbourState, error) {
	have := make(map[netip.Addr]neighbourState)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		req.AddData(&netlink.Ndmsg{Family: family})
		req.AddData(nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(device))))
		var answers [][]byte
		err := n.within(func() (err error) {
			answers, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("listing neighbours: %w", err)
		}
		for _, b := range answers {
			if s, ok := neighbourIn(b, device); ok {
				have[s.IP] = s
			}
		}
	}
	return have, nil
}

// neighbourIn reads an entry; ok is false for one of another device.
func neighbourIn(b []byte, device int) (s neighbourState, ok bool) {
	head := (*netlink.Ndmsg)(nil).Len()
	if len(b) < head || int(binary.NativeEndian.Uint32(b[4:])) != device {
		return s, false
	}
	state, flags := binary.NativeEndian.Uint16(b[8:]), b[10]
	attrs, err := attributesIn(b[head:])
	if err != nil {
		return s, false
	}
	for _, at := range attrs {
		switch {
		case at.Attr.Type == netlink.NDA_DST:
			s.IP, ok = netip.AddrFromSlice(at.Value)
		case at.Attr.Type == netlink.NDA_LLADDR && len(at.Value) == len(s.MAC):
			s.MAC = l2ext.MAC(at.Value)
		case at.Attr.Type == netlink.NDA_PROTOCOL && len(at.Value) == 1:
			s.ours = at.Value[0] == neighbourMark
		}
	}
	s.Router = flags&netlink.NTF_ROUTER != 0
	s.fixed = !s.ours && state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0
	return s, ok
}

func neighbourEntry(device, kind int, w l2ext.Neighbour) *nl.NetlinkRequest {
	msg := &netlink.Ndmsg{Family: unix.AF_INET, Index: uint32(device), State: netlink.NUD_NOARP, Flags: netlink.NTF_EXT_LEARNED}
	if w.IP.Is6() {
		msg.Family = unix.AF_INET6
		if w.Router {
			msg.Flags |= netlink.NTF_ROUTER
		}
	}
	return request(kind, msg, nl.NewRtAttr(netlink.NDA_DST, w.IP.AsSlice()),
		nl.NewRtAttr(netlink.NDA_LLADDR, w.MAC[:]), nl.NewRtAttr(netlink.NDA_PROTOCOL, []byte{neighbourMark}))
}
