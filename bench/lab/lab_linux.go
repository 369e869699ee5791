package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// Options of a lab. The zero value is the demo's WAN.
type Options struct {
	// Link between the sites. The zero value means DefaultLink.
	Link Link

	// Seed of all that is random on the WAN.
	Seed uint64

	// Emulator is the command line of a program that calls wanem.Serve, such
	// as {"/proc/self/exe", …}. Empty runs the emulator in this process,
	// which is less exact when the process is busy.
	Emulator []string

	// Congestion is the TCP congestion control of connections over the WAN,
	// such as "cubic", Linux's own default. Empty means this host's default.
	Congestion string

	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// Names and addresses that every lab has.
const (
	Bridge    = "br-lan"       // each site's LAN
	WANDevice = "wan0"         // each site's end of the WAN
	ClientIP  = "10.77.0.2"    // of the client on the LAN
	GuestIP   = "10.77.0.10"   // of the first guest; further ones count up
	LANPrefix = "10.77.0.0/24" // of the LAN
)

// A Lab is two sites, a WAN and a client.
type Lab struct {
	ID     string
	Dir    string // everything that the lab writes
	A, B   *Site
	Client *Site // the third host; it has no WAN
	WAN    wanem.Emulator

	log     *slog.Logger
	options Options
	tcp     string // congestion control on the WAN
	guard   *watchdog
	taps    []*wanem.Tap
	lines   []func() error // the end of each one's emulator
	others  []*Site        // hosts and sites beside those above
	close   sync.Once
	closed  error
}

// New makes a lab. It needs root.
func New(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a lab makes network namespaces and needs root")
	}
	o.Link = cmp.Or(o.Link, DefaultLink())
	tcp, err := congestion(o.Congestion)
	if err != nil {
		return nil, err
	}
	id := newID()
	guard, err := watch(id)
	if err != nil {
		return nil, err
	}
	l := &Lab{ID: id, Dir: dirOf(id), log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), options: o, tcp: tcp, guard: guard}
	if err := l.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// congestion names the congestion control that will be in use.
func congestion(asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "", fmt.Errorf("asking for the host's congestion control: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// build makes the namespaces, the cables and the emulator.
func (l *Lab) build() (err error) {
	if l.A, err = l.newSite("a"); err != nil {
		return err
	}
	if l.B, err = l.newSite("b"); err != nil {
		return err
	}
	if l.Client, err = l.newSite("c"); err != nil {
		return err
	}
	if err := errors.Join(l.A.net.Bridge(Bridge), l.B.net.Bridge(Bridge)); err != nil {
		return err
	}
	if err := nstest.Veth(l.A.net, "client", l.Client.net, "eth0"); err != nil {
		return err
	}
	if err := errors.Join(l.A.net.Plug("client", Bridge), l.Client.net.Addr("eth0", ClientIP+"/24")); err != nil {
		return err
	}
	l.A.WAN, l.B.WAN = netip.AddrFrom4([4]byte{198, 51, 100, 1}), netip.AddrFrom4([4]byte{198, 51, 100, 2}) // RFC 5737, TEST-NET-2
	l.WAN, err = l.join(end{l.A, WANDevice, netip.PrefixFrom(l.A.WAN, 24)}, end{l.B, WANDevice, netip.PrefixFrom(l.B.WAN, 24)})
	return err
}

// SetLink changes both directions of the WAN.
func (l *Lab) SetLink(link Link) error {
	return wanem.Both(func(d wanem.Direction) error { return l.WAN.Set(d, link.Profile()) })
}

// Cut breaks the WAN in both directions, Heal mends it.
func (l *Lab) Cut() error { return wanem.Both(l.WAN.Cut) }

// Heal mends the WAN.
func (l *Lab) Heal() error { return wanem.Both(l.WAN.Heal) }

// Site finds a site by name: "a", "b", "c" for the client, or one that was added.
func (l *Lab) Site(name string) (*Site, error) {
	for _, s := range l.all() {
		if s.Name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("the lab has no site %q", name)
}

// all sites and hosts; some are nil when the lab was not made in full.
func (l *Lab) all() []*Site { return append([]*Site{l.A, l.B, l.Client}, l.others...) }

// Close ends all processes of the lab and removes it. A second Close does
// nothing.
func (l *Lab) Close() error {
	l.close.Do(func() {
		var errs []error
		for _, end := range l.lines {
			errs = append(errs, end())
		}
		for _, s := range l.all() {
			if s != nil {
				errs = append(errs, s.close())
			}
		}
		for _, t := range l.taps {
			errs = append(errs, t.Close())
		}
		errs = append(errs, os.RemoveAll(l.Dir), l.guard.dismiss())
		l.closed = errors.Join(errs...)
	})
	return l.closed
}

// Hint tells how to look into the lab from another terminal.
func (l *Lab) Hint() string {
	return fmt.Sprintf(`sites: ip netns exec %s bash     (and %s)
client: ip netns exec %s ping %s
logs, consoles and sockets: %s`, l.A.Namespace, l.B.Namespace, l.Client.Namespace, GuestIP, l.Dir)
}

// folder makes a folder of the lab.
func (l *Lab) folder(parts ...string) (string, error) {
	dir := filepath.Join(append([]string{l.Dir}, parts...)...)
	return dir, os.MkdirAll(dir, 0o755)
}
