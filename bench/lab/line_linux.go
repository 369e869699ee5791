package lab

import (
	"context"
	"errors"
	"net/netip"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// end of a line between two sites.
type end struct {
	site *Site
	dev  string
	addr netip.Prefix // in the line's own network
}

// join lays a line between two sites, with an emulator that runs until Close.
func (l *Lab) join(a, b end) (wanem.Emulator, error) {
	near, err := l.plugWAN(a)
	if err != nil {
		return nil, err
	}
	far, err := l.plugWAN(b)
	if err != nil {
		return nil, err
	}
	a.site.toward[b.site], b.site.toward[a.site] = b.addr.Addr(), a.addr.Addr()
	e, stop, err := l.emulate(near, far)
	if err != nil {
		return nil, err
	}
	l.lines = append(l.lines, stop)
	return e, nil
}

// wanQueue is the transmit queue of a site's end in packets: longer than the
// default of 1000, so that a burst waits for the emulator to read it and only
// the emulator's own queue drops.
const wanQueue = "10000"

// plugWAN opens a site's end of a line.
func (l *Lab) plugWAN(e end) (*wanem.Tap, error) {
	var tap *wanem.Tap
	err := e.site.net.Do(func() (err error) {
		tap, err = wanem.OpenTap(e.dev)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.taps = append(l.taps, tap)
	if err := e.site.ip("link", "set", e.dev, "txqueuelen", wanQueue); err != nil {
		return nil, err
	}
	if err := errors.Join(e.site.net.Up(e.dev), e.site.net.Addr(e.dev, e.addr.String())); err != nil {
		return nil, err
	}
	if l.options.Congestion == "" {
		return tap, nil
	}
	// By the route, because the sysctl is not writable in every namespace.
	return tap, e.site.ip("route", "change", e.addr.Masked().String(), "dev", e.dev, "proto", "kernel", "scope", "link", "src", e.addr.Addr().String(),
		"congctl", l.options.Congestion)
}

// emulate runs an emulator of the lab's link between two ends until stop is called.
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
