package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/longhaul-project/longhaul/bench/wanem"
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

// AddSite makes a third site, with a LAN, and lines to both others that are like the line between these.
// It ends with the lab. Each pair of sites has a network of its own, see Address.
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
		first := byte(4 * i) // of 203.0.113.0/30, and of the next: RFC 5737, TEST-NET-3
		near, far := netip.AddrFrom4([4]byte{203, 0, 113, first + 1}), netip.AddrFrom4([4]byte{203, 0, 113, first + 2})
		if err := l.join(end{other, "wan-" + name, near}, end{s, "wan-" + other.Name, far}); err != nil {
			return nil, fmt.Errorf("joining sites %s and %s: %w", other.Name, name, err)
		}
	}
	return s, nil
}

// end of a line.
type end struct {
	site *Site
	dev  string
	addr netip.Addr
}

// join lays a line between two sites, beside that of the lab.
func (l *Lab) join(ends ...end) error {
	var taps []*wanem.Tap
	for i, e := range ends {
		var tap *wanem.Tap
		err := e.site.net.Do(func() (err error) { tap, err = wanem.OpenTap(e.dev); return err })
		if err != nil {
			return err
		}
		l.taps, taps = append(l.taps, tap), append(taps, tap)
		if err := e.site.ip("link", "set", e.dev, "txqueuelen", wanQueue); err != nil {
			return err
		}
		if err := errors.Join(e.site.net.Up(e.dev), e.site.net.Addr(e.dev, e.addr.String()+"/30")); err != nil {
			return err
		}
		peer := ends[1-i]
		if e.site.toward == nil {
			e.site.toward = make(map[*Site]netip.Addr)
		}
		e.site.toward[peer.site] = peer.addr
	}
	_, stop, err := l.emulate(taps[0], taps[1])
	if err == nil {
		l.stops = append(l.stops, stop)
	}
	return err
}

// Address is where one site reaches another.
func (s *Site) Address(other *Site) netip.Addr {
	if a, ok := s.toward[other]; ok {
		return a
	}
	return other.WAN
}

// emulate runs an emulator between two ends until stop is called.
func (l *Lab) emulate(a, b *wanem.Tap) (e wanem.Emulator, stop func() error, err error) {
	o := l.options
	c := wanem.Config{AB: o.Link.Profile(), BA: o.Link.Profile(), Seed: o.Seed, Logger: l.log}
	if len(o.Emulator) > 0 {
		child, err := wanem.StartChild(o.Emulator, a, b, c)
		if err != nil {
			return nil, nil, err
		}
		return child, child.Close, nil
	}
	wan, err := wanem.New(a, b, c)
	if err != nil {
		return nil, nil, err
	}
	// Its end is Close, not the end of New's context.
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // one message
	go func() { ended <- wan.Run(ctx) }()
	return wan, func() error { cancel(); return <-ended }, nil
}
