package hostnet

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// mutedMark is the alias of a port that gets no broadcasts, so that the next
// gateway finds it, should this one die. A port with an alias of somebody else
// is left alone.
const mutedMark = mark + "muted"

// Mute keeps broadcast and multicast from a port.
func (n *Net) Mute(port string) error {
	n.apply.Lock()
	defer n.apply.Unlock()
	l, err := n.nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("muting port %s: %w", port, err)
	}
	if a := l.Attrs().Alias; a != "" && a != mutedMark {
		return fmt.Errorf("muting port %s: it has the alias %q", port, a)
	}
	if err := n.nl.LinkSetAlias(l, mutedMark); err != nil { // first: what is muted can be found
		return fmt.Errorf("marking port %s: %w", port, err)
	}
	n.muted[port] = true
	if err := n.flood(l, false); err != nil {
		return errors.Join(fmt.Errorf("muting port %s: %w", port, err), n.unmute(l))
	}
	return nil
}

// Unmute ends that.
func (n *Net) Unmute(port string) error {
	n.apply.Lock()
	defer n.apply.Unlock()
	l, err := n.nl.LinkByName(port)
	if notFound(err) {
		delete(n.muted, port)
		return nil
	}
	if err == nil && l.Attrs().Alias == mutedMark {
		err = n.unmute(l)
	}
	if err != nil {
		return fmt.Errorf("unmuting port %s: %w", port, err)
	}
	return nil
}

// unmute needs n.apply.
func (n *Net) unmute(l netlink.Link) error {
	delete(n.muted, l.Attrs().Name)
	if l.Attrs().MasterIndex != 0 { // else the flags went with the bridge
		if err := n.flood(l, true); err != nil {
			return err
		}
	}
	return n.nl.LinkSetAlias(l, "")
}

// unmuteAll opens the ports that this gateway has muted. It needs n.apply.
func (n *Net) unmuteAll() error {
	var errs []error
	for port := range n.muted {
		l, err := n.nl.LinkByName(port)
		if err == nil {
			err = n.unmute(l)
		}
		if err != nil && !notFound(err) {
			errs = append(errs, fmt.Errorf("unmuting port %s: %w", port, err))
		}
	}
	return errors.Join(errs...)
}

// unmuteLeft opens the ports that a gateway before us has muted.
func (n *Net) unmuteLeft() error {
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("listing devices: %w", err)
	}
	for _, l := range links {
		if a := l.Attrs(); a.Alias == mutedMark && !n.muted[a.Name] {
			if err := n.unmute(l); err != nil {
				return fmt.Errorf("unmuting port %s: %w", a.Name, err)
			}
			n.log.Info("port gets broadcasts again", "device", a.Name)
		}
	}
	return nil
}

// flood switches, at a bridge's port, broadcast and multicast for everybody on
// or off; netlink's API has calls for neither. Multicast that somebody behind
// the port has asked for is not meant by it.
func (n *Net) flood(l netlink.Link, on bool) error {
	var flag byte
	if on {
		flag = 1
	}
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(l.Attrs().Index)
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_MCAST_FLOOD, []byte{flag})
	info.AddRtAttr(nl.IFLA_BRPORT_BCAST_FLOOD, []byte{flag})
	req.AddData(info)
	return n.raw.execute(req)
}
