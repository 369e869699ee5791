package hostnet

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Messages of hosts and routers about groups: of 02:00:00:00:00:77, about
// 239.1.2.3 (01:00:5e:01:02:03) and ff15::1:203 (33:33:00:01:02:03).
const (
	igmpReport = "01005e010203 020000000077 0800 46000020 00000000 0102 0000 0a000002 ef010203 94040000 16000000 ef010203"
	igmpQuery  = "01005e000001 020000000077 0800 46000020 00000000 0102 0000 0a000003 e0000001 94040000 11640000 00000000"
	mldReport  = "333300010203 020000000077 86dd 60000000 0020 00 01 fe800000000000000000000000000077 ff150000000000000000000000010203 3a00 05020000 0100 83000000 00000000 ff150000000000000000000000010203"
)

// bytesOf gives a message the checksum of its IPv4 header: a kernel with br_netfilter
// drops it without.
func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	check(t, err)
	if b[12] == 8 {
		ip, sum := b[14:], 0
		for i := 0; i < int(ip[0]&0xf)*4; i += 2 {
			sum += int(binary.BigEndian.Uint16(ip[i:]))
		}
		sum = sum&0xffff + sum>>16
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum&0xffff+sum>>16))
	}
	return b
}

// farSites are machines of the underlay that count the frames of many that come to
// them, by the last byte of their addresses.
type farSites map[byte]*net.UDPConn

func newFarSites(t *testing.T, ns *nstest.NS) farSites {
	t.Helper()
	far := nstest.New(t)
	check(t, nstest.Veth(ns, "wan0", far, "wan0"), ns.Addr("wan0", local+"/24"))
	sites := make(farSites)
	for _, last := range []byte{2, 3} {
		addr := netip.AddrFrom4([4]byte{10, 78, 0, last})
		check(t, far.Addr("wan0", addr.String()+"/24"))
		check(t, far.Do(func() (err error) {
			sites[last], err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, directPort)))
			return err
		}))
		t.Cleanup(func() { sites[last].Close() })
	}
	return sites
}

// busyDirect is a segment whose limits do not get into the way of a test.
func busyDirect() l2ext.Wish {
	w := prodDirect("br0")
	w.Policy.Limits = l2ext.Limits{Resolve: 1000, Broadcast: 1000, Multicast: 1000}
	return w
}

// get tells to which sites a frame comes that a LAN port sends: a broadcast follows it,
// which comes to all.
func (s farSites) get(t *testing.T, port *os.File, sent []byte) (sites []byte) {
	t.Helper()
	mark := frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46)
	for _, f := range [][]byte{sent, mark} {
		_, err := port.Write(f)
		check(t, err)
	}
	for last, c := range s {
		check(t, c.SetReadDeadline(time.Now().Add(l2exttest.Patience)))
		for b := make([]byte, 2048); ; {
			n, err := c.Read(b)
			check(t, err)
			got := string(b[min(8, n):n]) // without the VXLAN header
			if got == string(mark) {
				break
			}
			if got == string(sent) {
				sites = append(sites, last)
			}
		}
	}
	slices.Sort(sites)
	return sites
}

// TestDirectListeners has the kernel send multicast of three kinds to two sites, as
// the gateway wishes: to all, to the sites that listen, to nobody.
func TestDirectListeners(t *testing.T) {
	ns := nstest.New(t)
	n, tap := newLAN(t, ns)
	sites, w := newFarSites(t, ns), busyDirect()
	w.Policy.Multicast = l2ext.MulticastListeners
	w.Direct.Sites = append(w.Direct.Sites, l2ext.UnderlaySite{Site: 17, Addr: netip.MustParseAddr("10.78.0.3"), MAC: l2ext.MAC{0x0e, 0x4c, 0, 0, 0, 3}})
	known, known6 := l2ext.MAC{1, 0, 0x5e, 1, 2, 3}, l2ext.MAC{0x33, 0x33, 0, 1, 2, 3}
	to := func(dst string) []byte { return frame(dst, "\x88\xb6", 46) }
	frames := [][]byte{
		to("\x01\x00\x5e\x01\x02\x03"), to("\x01\x00\x5e\x09\x09\x09"), to("\x01\x00\x5e\x00\x00\xfb"), // known, unknown, of the link
		to("\x33\x33\x00\x01\x02\x03"), to("\x33\x33\x00\x09\x09\x09"), to("\x33\x33\x00\x00\x00\xfb"), // likewise
		to("\x33\x33\xff\x09\x09\x09"), bytesOf(t, igmpReport), bytesOf(t, igmpQuery), bytesOf(t, mldReport),
	}
	tables := ""
	all, one, none := "\x02\x03", "\x03", ""
	for _, tt := range []struct {
		name  string
		l     l2ext.Listeners
		reach []string // each frame, to the sites
	}{
		{"at first", l2ext.Listeners{}, []string{all, all, all, all, all, all, all, all, all, all}},
		{"one listens", l2ext.Listeners{Groups: []l2ext.Group{{MAC: known, Sites: []vxlan.Endpoint{17}}}},
			[]string{one, all, all, all, all, all, all, one, all, all}},
		{"only groups of IPv4", l2ext.Listeners{Groups: []l2ext.Group{{MAC: known, Sites: []vxlan.Endpoint{17}}}, OnlyGroups: [2]bool{true, false}},
			[]string{one, none, all, all, all, all, all, one, all, all}},
		{"only groups", l2ext.Listeners{Groups: []l2ext.Group{{MAC: known6, Sites: []vxlan.Endpoint{16, 17}}}, OnlyGroups: [2]bool{true, true}},
			[]string{none, none, all, all, none, all, all, all, all, all}},
		{"none any more", l2ext.Listeners{}, []string{all, all, all, all, all, all, all, all, all, all}},
	} {
		w.Direct.Listeners = tt.l
		for range 2 {
			apply(t, n, w)
		}
		if tables == "" {
			tables = n.guard.key
		} else if tables != n.guard.key {
			t.Errorf("%s: the tables were made anew", tt.name)
		}
		for i, f := range frames {
			if got := string(sites.get(t, tap, f)); got != tt.reach[i] {
				t.Errorf("%s: frame %d to % x reaches % x, want % x", tt.name, i, f[:6], got, tt.reach[i])
			}
		}
	}
}

// TestCopiesForAll: whatever is wished, what all hosts of a link hear has no entry of its own.
func TestCopiesForAll(t *testing.T) {
	good := l2ext.MAC{1, 0, 0x5e, 1, 2, 3}
	u := &l2ext.Underlay{Sites: []l2ext.UnderlaySite{{Site: 16, Addr: netip.MustParseAddr("10.78.0.2")}}}
	for _, g := range []l2ext.MAC{good, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x33, 0x33, 0, 0, 0, 1}, {0x33, 0x33, 0xff, 1, 2, 3}} {
		u.Listeners.Groups = append(u.Listeners.Groups, l2ext.Group{MAC: g, Sites: []vxlan.Endpoint{16}})
	}
	want := map[aCopy]bool{{to: u.Sites[0].Addr}: true, {group: good, to: u.Sites[0].Addr}: true}
	if got := copiesOf(u); !maps.Equal(got, want) {
		t.Errorf("entries %v", got)
	}
}

// TestDirectReports: where no router asks, what other sites' hosts say of groups stays
// away from the LAN; and what its own hosts say is reported.
func TestDirectReports(t *testing.T) {
	ns := nstest.New(t)
	n, tap := newLAN(t, ns)
	sites, w := newFarSites(t, ns), busyDirect()
	messages := [][]byte{bytesOf(t, igmpReport), bytesOf(t, igmpQuery), bytesOf(t, mldReport)}
	mark := frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46)
	for _, tt := range []struct {
		no    [2]bool
		heard int
	}{{[2]bool{}, 3}, {[2]bool{true, false}, 2}, {[2]bool{true, true}, 1}} {
		w.Direct.Listeners.NoReports = tt.no
		apply(t, n, w)
		for _, f := range append(messages, mark) {
			_, err := sites[2].WriteToUDPAddrPort(append([]byte{8, 0, 0, 0, 0, 0, 100, 0}, f...), netip.MustParseAddrPort(local+":14790"))
			check(t, err)
		}
		check(t, tap.SetReadDeadline(time.Now().Add(l2exttest.Patience)))
		heard := 0
		for b := make([]byte, 2048); ; {
			k, err := tap.Read(b)
			check(t, err)
			if string(b[:k]) == string(mark) {
				break
			}
			if slices.ContainsFunc(messages, func(m []byte) bool { return string(m) == string(b[:k]) }) {
				heard++
			}
		}
		if heard != tt.heard {
			t.Errorf("without reports %t: %d of the other site's messages came to the LAN", tt.no, heard)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan string, 100) // more than are sent
	ended := make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, func(s l2ext.Sighting) {
			if s.Report != nil {
				reports <- string(s.Report)
			}
		})
	}()
	for _, m := range messages {
		for until := time.Now().Add(l2exttest.Patience); ; {
			_, err := tap.Write(m)
			check(t, err)
			select {
			case got := <-reports:
				if got != string(m) {
					continue // the one before, once more
				}
			case <-time.After(10 * time.Millisecond): // Watch may not have begun
				if time.Now().After(until) {
					t.Fatalf("% x was not reported", m)
				}
				continue
			}
			break
		}
	}
	cancel()
	check(t, <-ended)
}
