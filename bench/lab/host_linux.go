package lab

import (
	"errors"

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
