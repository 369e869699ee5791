package hostnet

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/longhaul-project/longhaul/l2ext"
)

// needFast finds the segment's TAP as it ought to be, or makes it.
func (n *Net) needFast(w l2ext.Wish, br netlink.Link) (netlink.Link, *fastPort, error) {
	name := deviceName(w.VNI)
	mtu := max(w.MTU, br.Attrs().MTU)
	l, err := n.nl.LinkByName(name)
	if err != nil && !notFound(err) {
		return nil, nil, fmt.Errorf("finding device %s: %w", name, err)
	}
	n.mu.RLock()
	p := n.segments[w.VNI].fast
	n.mu.RUnlock()
	if err == nil && p != nil && l.Type() == "tuntap" {
		return l, p, n.setPort(w, l, br, portSpec{mtu: mtu, many: true})
	}
	n.closeFast(w.VNI)
	if err == nil {
		if err := n.removePort(l); err != nil {
			return nil, nil, err
		}
	}
	if err := n.within(func() (err error) { p, err = openFastPort(name); return err }); err != nil {
		return nil, nil, err
	}
	if l, err = n.setUpFast(w, br, name, mtu); err != nil {
		p.close()
		return nil, nil, err
	}
	return l, p, nil
}

// removePort removes a device that has the name of an overlay port.
func (n *Net) removePort(l netlink.Link) error {
	if !isOurs(l) {
		return fmt.Errorf("device %s is there and is not ours", l.Attrs().Name)
	}
	if err := n.nl.LinkDel(l); err != nil && !notFound(err) { // a TAP has gone with its file
		return fmt.Errorf("removing device %s: %w", l.Attrs().Name, err)
	}
	return nil
}

func (n *Net) setUpFast(w l2ext.Wish, br netlink.Link, name string, mtu int) (netlink.Link, error) {
	l, err := n.claim(name, segmentMark+w.Name)
	if err != nil {
		return nil, err
	}
	if err := n.nl.LinkSetHardwareAddr(l, randomMAC(0xfe, 0xff)); err != nil {
		return nil, fmt.Errorf("setting up device %s: MAC: %w", name, err)
	}
	if err := n.nl.LinkSetTxQLen(l, tunQueue); err != nil {
		return nil, fmt.Errorf("setting up device %s: queue: %w", name, err)
	}
	return l, n.setPort(w, l, br, portSpec{mtu: mtu, many: true})
}

// closeFast closes the TAP of a segment, if it has one.
func (n *Net) closeFast(vni uint32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a := n.segments[vni]; a.fast != nil {
		a.fast.close()
		a.fast = nil
		n.segments[vni] = a
	}
}
