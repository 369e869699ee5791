package l2ext_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// lab is sites on one machine, "a" and "b" and whatever more, each with a bridge
// of its own and one host on it, and the segment "prod" stretched between them.
type lab struct {
	wire  *l2exttest.Wire
	mode  l2ext.Mode
	sites map[string]*site
	flips []time.Duration // how long each Flip took
	end   func()          // stops managers and wire, and waits for them
}

type site struct {
	name string
	gw   *nstest.NS // the gateway's machine, with the bridge
	host *nstest.NS // a machine on its LAN
	ip   string     // of that
	m    *l2ext.Manager
	net  *pointing
}

// pointing is a Host that counts the entries that it is told to change.
type pointing struct {
	l2ext.Host
	entries atomic.Int64
}

func (p *pointing) Point(vni uint32, entries []l2ext.Entry) error {
	err := p.Host.Point(vni, entries)
	p.entries.Add(int64(len(entries)))
	return err
}

const bridgeName = "brprod"

func newLab(t testing.TB, line l2exttest.Line) *lab { return newLabOf(t, line, "a", "b") }

func newLabOf(t testing.TB, line l2exttest.Line, names ...string) *lab {
	return newLabIn(t, l2ext.Mode(*mode), line, names...)
}

func newLabIn(t testing.TB, mode l2ext.Mode, line l2exttest.Line, names ...string) *lab {
	t.Helper()
	l := &lab{mode: mode, wire: l2exttest.NewWire(line), sites: make(map[string]*site)}
	ms := make(map[string]*l2ext.Manager)
	for i, name := range names {
		s := &site{name: name, gw: nstest.New(t), host: nstest.New(t), ip: fmt.Sprintf("10.77.0.%d", i+1)}
		// The gateway's devices say nothing of their own then; the carrier must switch IPv6 on for itself.
		check(t, s.gw.Sysctl("ipv6.conf.default.disable_ipv6", "1"))
		check(t, nstest.Veth(s.gw, "lan0", s.host, "eth0"), s.gw.Bridge(bridgeName, "lan0"))
		check(t, s.host.SetMAC("eth0", fmt.Sprintf("02:00:00:00:00:0%d", i+1)))
		check(t, s.host.Addr("eth0", s.ip+"/24"), s.host.Addr("eth0", fmt.Sprintf("fd77::%d/64", i+1)))
		n, err := hostnet.New(hostnet.Config{NetNS: s.gw.FD()})
		check(t, err)
		s.net = &pointing{Host: n}
		s.m, err = l2ext.New(l2ext.Config{Site: name, Host: s.net, Carrier: l.wire.End(name), Express: l.wire.Express(name), Underlay: underlayOf(i)})
		check(t, err)
		ms[name], l.sites[name] = s.m, s
	}
	l.wire.Join(ms)
	l.run(t)
	l.apply(t, l2ext.Policy{})
	return l
}

// underlayOf is the address of a site's machine on the underlay.
func underlayOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 78, 0, byte(i + 1)}) }

// apply stretches the segment under a policy.
func (l *lab) apply(t testing.TB, p l2ext.Policy) {
	t.Helper()
	for name, s := range l.sites {
		var others []string
		for other := range l.sites {
			if other != name {
				others = append(others, other)
			}
		}
		check(t, s.m.Apply(t.Context(), []l2ext.Segment{{Name: "prod", VNI: 100, Bridge: bridgeName, Sites: others, Mode: l.mode, Policy: p}}))
	}
}

func (l *lab) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, s := range l.sites {
		wg.Go(func() {
			if err := s.m.Run(ctx); err != nil {
				t.Errorf("site %s: %v", s.name, err)
			}
		})
	}
	wg.Go(func() { l.wire.Run(ctx) })
	l.end = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(l.end)
}

// until waits for a condition, and fails with what when it does not come.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(l2exttest.Patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", l2exttest.Patience, what)
		}
	}
}

// binding finds what a site knows of a MAC.
func (s *site) binding(mac l2ext.MAC) (l2ext.Binding, bool) {
	for _, v := range s.m.Segments() {
		for _, b := range v.Bindings {
			if b.MAC == mac {
				return b, true
			}
		}
	}
	return l2ext.Binding{}, false
}

// isAt tells whether both sites think that the MAC is at the named one.
func (l *lab) isAt(mac l2ext.MAC, at string) bool {
	for _, s := range l.sites {
		if b, ok := s.binding(mac); !ok || b.Site != at {
			return false
		}
	}
	return true
}

func (s *site) count(c l2ext.Count) uint64 { return s.m.Segments()[0].Counts[c] }

// echoUDP answers datagrams at an address of a namespace until the test ends.
func echoUDP(t testing.TB, ns *nstest.NS, addr string) {
	t.Helper()
	var c net.PacketConn
	check(t, ns.Do(func() (err error) { c, err = net.ListenPacket("udp", addr); return err }))
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
}

// dialUDP opens a socket in a namespace whose datagrams may not be fragmented.
func dialUDP(t testing.TB, ns *nstest.NS, addr string) *net.UDPConn {
	t.Helper()
	var c net.Conn
	check(t, ns.Do(func() (err error) { c, err = net.Dial("udp", addr); return err }))
	t.Cleanup(func() { c.Close() })
	raw, err := c.(*net.UDPConn).SyscallConn()
	check(t, err, raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	}))
	return c.(*net.UDPConn)
}

// echoed sends datagrams of n bytes until one comes back. What ICMP tells meanwhile, at
// a Write or a Read, ends nothing: it may be of before the way was there.
func echoed(c *net.UDPConn, n int) error {
	b := make([]byte, 1<<16)
	var last error
	for deadline := time.Now().Add(l2exttest.Patience); time.Now().Before(deadline); {
		if _, err := c.Write(b[:n]); err != nil {
			last = fmt.Errorf("sending %d bytes: %w", n, err)
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for again := false; !again; {
			k, err := c.Read(b)
			switch {
			case err == nil && k == n:
				return nil
			case err == nil: // an answer to what was sent before
			case errors.Is(err, net.ErrClosed):
				return err
			case errors.Is(err, os.ErrDeadlineExceeded):
				again, last = true, cmp.Or(last, err)
			default:
				last = fmt.Errorf("waiting for %d bytes: %w", n, err)
			}
		}
	}
	return last
}

// vm stands in for a VM: a kernel stack behind a process that plays QEMU's
// network backend. It is at one site, or nowhere while it is paused; then what
// reaches its TAP at the destination waits there, as with QEMU.
type vm struct {
	ns   *nstest.NS
	mac  l2ext.MAC
	ip   string
	nic  *os.File
	taps map[string]*os.File
	at   atomic.Pointer[string]
	wake map[string]chan struct{} // 1: a backend is told that it may go on
	vlan atomic.Pointer[vlans]    // in which its NIC is; nil: it has no tags
}

const tapName = "tapvm"

func newVM(t testing.TB, l *lab) *vm {
	t.Helper()
	v := &vm{ns: nstest.New(t), mac: l2ext.MAC{0x52, 0x54, 0, 0, 0, 9}, ip: "10.77.0.9",
		taps: make(map[string]*os.File), wake: map[string]chan struct{}{"nic": make(chan struct{}, 1)}}
	for name := range l.sites {
		v.wake[name] = make(chan struct{}, 1)
	}
	var wg sync.WaitGroup
	var err error
	v.nic, err = v.ns.Tap("eth0")
	check(t, err, v.ns.SetMAC("eth0", v.mac.String()), v.ns.Addr("eth0", v.ip+"/24"))
	v.put("a")
	for name, s := range l.sites {
		v.taps[name], err = s.gw.Tap(tapName)
		check(t, err, s.gw.Plug(tapName, bridgeName))
	}
	ctx, cancel := context.WithCancel(context.Background())
	for name, tap := range v.taps {
		wg.Go(func() { v.backend(ctx, name, tap) })
	}
	wg.Go(func() { v.transmit(ctx) })
	t.Cleanup(func() {
		cancel()
		for _, f := range v.taps {
			f.Close()
		}
		v.nic.Close()
		wg.Wait()
	})
	echoUDP(t, v.ns, v.ip+":7")
	return v
}

// boundVM is a VM at a that has talked to the host of each site, and of which all
// sites know.
func boundVM(t testing.TB, l *lab) *vm {
	t.Helper()
	v := newVM(t, l)
	for _, s := range l.sites {
		check(t, echoed(dialUDP(t, s.host, v.ip+":7"), 100))
	}
	until(t, "the VM is bound", func() bool { return l.isAt(v.mac, "a") })
	return v
}

// put moves the VM to a site; "" pauses it.
func (v *vm) put(at string) {
	v.at.Store(&at)
	for _, c := range v.wake {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// backend reads one site's TAP while the VM is there.
func (v *vm) backend(ctx context.Context, name string, tap *os.File) {
	for b := make([]byte, 1<<16); ; {
		for *v.at.Load() != name {
			select {
			case <-v.wake[name]:
			case <-ctx.Done():
				return
			}
			tap.SetReadDeadline(time.Time{})
		}
		n, err := tap.Read(b)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		if *v.at.Load() == name { // else it is lost with the source, as in QEMU
			if frame, ok := v.vlan.Load().untag(name, b[:n]); ok {
				v.nic.Write(frame)
			}
		}
	}
}

// transmit sends what the VM sends to the site at which it is.
func (v *vm) transmit(ctx context.Context) {
	for b := make([]byte, 1<<16); ; {
		n, err := v.nic.Read(b)
		if err != nil {
			return
		}
		for *v.at.Load() == "" {
			select {
			case <-v.wake["nic"]:
			case <-ctx.Done():
				return
			}
		}
		at := *v.at.Load()
		v.taps[at].Write(v.vlan.Load().tag(at, b[:n]))
	}
}

// nics are those of the VM at any site.
func (v *vm) nics() []l2ext.NIC { return []l2ext.NIC{{MAC: v.mac, Tap: tapName}} }
