package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// AddHost makes a host with a network of its own on a LAN of a site: the bridge on, which has to
// be there. It has one device, eth0, with ip. It ends with the lab.
func (l *Lab) AddHost(at *Site, on, name, ip string) (*Site, error) {
	h, err := l.newSite(name)
	if err != nil {
		return nil, err
	}
	l.others = append(l.others, h)
	port := "to-" + name
	if err := nstest.Veth(at.net, port, h.net, "eth0"); err != nil {
		return nil, err
	}
	return h, errors.Join(at.net.Plug(port, on), h.net.Addr("eth0", ip+"/24"))
}

// AddSite makes a third site, with a LAN, and a line to each of the two that is like the line between
// these. There can be one. It ends with the lab. It has no address for all others, see Address.
func (l *Lab) AddSite(name string) (*Site, error) {
	s, err := l.newSite(name)
	if err != nil {
		return nil, err
	}
	l.others = append(l.others, s)
	if err := s.net.Bridge(Bridge); err != nil {
		return nil, err
	}
	for i, other := range []*Site{l.A, l.B} {
		near := netip.AddrFrom4([4]byte{203, 0, 113, byte(4*i + 1)}) // in a /30 for each line; RFC 5737, TEST-NET-3
		_, err := l.join(end{other, "wan-" + name, netip.PrefixFrom(near, 30)}, end{s, "wan-" + other.Name, netip.PrefixFrom(near.Next(), 30)})
		if err != nil {
			return nil, fmt.Errorf("joining sites %s and %s: %w", other.Name, name, err)
		}
	}
	return s, nil
}
