package hostnet

import (
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
)

// The kernel lists the VLANs of all ports of a machine or of none: with some hundred
// trunks it is a megabyte. So one list is for all who want to know for a while.

// vlansAgain is how long a list of VLANs is not asked for again after the kernel has
// failed to tell, as it does when ports come and go meanwhile.
const vlansAgain = 500 * time.Millisecond

// vlanList is the latest that the kernel has told of the VLANs of ports.
type vlanList struct {
	mu    sync.Mutex                  // guards what follows
	ports map[int][]nl.BridgeVlanInfo // by index; nobody alters it
	until time.Time                   // it is good enough for the snooper
}

// listVLANs asks the kernel. With an error it tells what was known before.
func (n *Net) listVLANs(now time.Time) (map[int][]nl.BridgeVlanInfo, error) {
	ports, err := n.vlans.of()
	l := &n.listed
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.until = now.Add(vlansAgain)
		return l.ports, err
	}
	l.ports, l.until = ports, now.Add(portFor)
	return l.ports, nil
}

// recentVLANs tells the VLANs of a port, and how long that is good. It asks the kernel if
// what that has told is older than portFor, or is from before the port was plugged in.
func (n *Net) recentVLANs(now time.Time, port int) (vlans []nl.BridgeVlanInfo, until time.Time) {
	l := &n.listed
	know := func() (known bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		vlans, known = l.ports[port]
		until = l.until
		return known && now.Before(until)
	}
	if know() {
		return vlans, until
	}
	if _, err := n.listVLANs(now); err != nil {
		n.log.Debug("VLANs of ports are not known for sure", "err", err)
	}
	know()
	return vlans, until
}

// wishedVLANs asks the kernel once in an Apply, and again when a port was plugged in.
func (n *Net) wishedVLANs() (map[int][]nl.BridgeVlanInfo, error) {
	if n.applied == nil {
		ports, err := n.listVLANs(time.Now())
		if err != nil {
			return nil, err
		}
		n.applied = ports
	}
	return n.applied, nil
}
