package l2ext_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestDirectAnycast has a gateway with the same addresses at each of two sites: hosts
// reach that of their own, and nothing of the other crosses.
func TestDirectAnycast(t *testing.T) {
	l, _ := newDirectLab(t, l2exttest.Line{Delay: time.Millisecond}, "a", "b")
	mac := l2ext.MAC{2, 0, 0, 0, 0, 0xfe}
	ip4, ip6 := netip.MustParseAddr("10.77.0.254"), netip.MustParseAddr("fd77::fe")
	l.apply(t, l2ext.Policy{Gateway: l2ext.GatewayAnycast, GatewayMAC: mac, GatewayIPs: []netip.Addr{ip4, ip6}})
	spies := make(map[string]*os.File)
	for name, s := range l.sites {
		router := nstest.New(t)
		check(t, nstest.Veth(s.gw, "router", router, "eth0"), router.SetMAC("eth0", mac.String()), s.gw.Plug("router", bridgeName))
		check(t, router.Addr("eth0", ip4.String()+"/24"), router.Addr("eth0", ip6.String()+"/64"))
		sayUDP(t, router, ":9", name)
		spy, err := s.gw.Tap("spy")
		check(t, err, s.gw.Plug("spy", bridgeName))
		defer spy.Close()
		spies[name] = spy
		echoUDP(t, s.host, ":7")
	}
	check(t, echoed(dialUDP(t, l.sites["a"].host, "10.77.0.2:7"), 1472)) // what is no gateway's crosses
	for name, s := range l.sites {
		for _, addr := range []string{"10.77.0.254:9", "[fd77::fe]:9"} {
			forget(t, s.host)
			c := dialUDP(t, s.host, addr)
			for range 5 {
				if got := asked(t, c); got != name {
					t.Errorf("host %s reaches the gateway %q by %s", name, got, addr)
				}
			}
		}
		if _, ok := s.binding(mac); ok {
			t.Errorf("site %s binds the gateway", name)
		}
	}
	for name, spy := range spies {
		spy.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		other := map[string]l2ext.MAC{"a": {2, 0, 0, 0, 0, 2}, "b": {2, 0, 0, 0, 0, 1}}[name]
		for b := make([]byte, 2048); ; {
			n, err := spy.Read(b)
			if err != nil {
				break
			}
			h, err := ether.Parse(b[:n])
			if _, target := ether.About(h, b[:n]); err == nil && h.Src == other && (target == ip4 || target == ip6) {
				t.Errorf("site %s hears a question of the other site for the gateway", name)
			}
		}
	}
}

// sayUDP answers each datagram with a text until the test ends.
func sayUDP(t *testing.T, ns *nstest.NS, addr, text string) {
	t.Helper()
	var c net.PacketConn
	check(t, ns.Do(func() (err error) { c, err = net.ListenPacket("udp", addr); return err }))
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 2048); ; {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo([]byte(text), from)
		}
	}()
}

// asked sends datagrams until one is answered.
func asked(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	b := make([]byte, 2048)
	for range 20 {
		c.Write([]byte("who are you"))
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err := c.Read(b); err == nil {
			return string(b[:n])
		}
	}
	return ""
}
