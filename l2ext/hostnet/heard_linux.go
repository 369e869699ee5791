package hostnet

import (
	"encoding/binary"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

// userTick is the unit of the times that the kernel tells, USER_HZ, which is 100
// on all machines that we know.
const userTick = 10 * time.Millisecond

// cacheInfo is struct nda_cacheinfo of include/uapi/linux/neighbour.h: confirmed,
// used, updated, references, each 4 bytes.
const (
	cacheInfoLen     = 16
	cacheInfoUpdated = 8
)

// Heard asks the bridge when it learned a host last, which it notes for each
// frame of it (br_fdb_update in net/bridge/br_fdb.c). It takes some 10 µs: at a flip, frames
// go to the wrong site until the answer is there.
func (n *Net) Heard(vni uint32, mac l2ext.MAC) (ago time.Duration, ok bool) {
	n.mu.RLock()
	a, known := n.segments[vni]
	n.mu.RUnlock()
	if !known {
		return 0, false
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER})
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]))
	req.AddData(nl.NewRtAttr(netlink.NDA_MASTER, nl.Uint32Attr(uint32(a.bridge))))
	if vlan := a.lan.inside(); vlan != 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_VLAN, nl.Uint16Attr(vlan)))
	}
	var answer []byte
	err := n.ask(func(*netlink.Handle) (err error) {
		answer, err = n.raw.get(req)
		return err
	})
	if err != nil {
		return 0, false
	}
	return heardIn(answer, a.port)
}

// heardIn reads an entry of a bridge; one behind the overlay port was not heard.
func heardIn(b []byte, overlay int) (ago time.Duration, ok bool) {
	head := (*netlink.Ndmsg)(nil).Len()
	if len(b) < head || int(binary.NativeEndian.Uint32(b[4:])) == overlay {
		return 0, false
	}
	attrs, err := attributesIn(b[head:])
	if err != nil {
		return 0, false
	}
	for _, at := range attrs {
		if at.Attr.Type == netlink.NDA_CACHEINFO && len(at.Value) >= cacheInfoLen {
			return time.Duration(binary.NativeEndian.Uint32(at.Value[cacheInfoUpdated:])) * userTick, true
		}
	}
	return 0, false
}
