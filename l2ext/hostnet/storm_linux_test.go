package hostnet

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
)

// sent counts the frames that the bridge has sent into the segment's port.
func sent(t *testing.T, n *Net) uint64 {
	t.Helper()
	l, err := n.nl.LinkByName("lhvx100")
	check(t, err)
	return l.Attrs().Statistics.TxPackets + l.Attrs().Statistics.TxDropped
}

func frame(dst, kind string, n int) []byte {
	return append([]byte(dst+"\x52\x54\x00\x00\x00\x07"+kind), make([]byte, n)...)
}

// TestStorm sends far more than the limits into a segment, by two LAN ports,
// and looks at what the kernel lets through.
func TestStorm(t *testing.T) {
	ns := nstest.New(t)
	var taps [2]*os.File
	check(t, ns.Sysctl("ipv6.conf.default.disable_ipv6", "1"), ns.Bridge("br0"))
	for i, name := range []string{"tap0", "tap1"} {
		f, err := ns.Tap(name)
		check(t, err, ns.Plug(name, "br0"))
		t.Cleanup(func() { f.Close() })
		taps[i] = f
	}
	n := newNet(t, ns)
	w := prod("br0")
	w.Policy = l2ext.Policy{Limits: l2ext.Limits{Resolve: 40, Broadcast: 20, Multicast: 100, Unknown: 1}}
	_, err := n.Apply(t.Context(), []l2ext.Wish{w})
	check(t, err)
	for _, tt := range []struct {
		name  string
		frame []byte
		limit int
	}{
		{"ARP", frame("\xff\xff\xff\xff\xff\xff", "\x08\x06", 46), 40},
		{"broadcast", frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46), 20},
		{"multicast", frame("\x01\x00\x5e\x01\x01\x01", "\x88\xb6", 46), 100},
		{"neighbour discovery", append(frame("\x33\x33\xff\x00\x00\x01", "\x86\xdd\x60\x00\x00\x00\x00\x18\x3a\xff", 32), append([]byte{135}, make([]byte, 23)...)...), 40},
	} {
		time.Sleep(1100 * time.Millisecond) // the kernel's buckets are full again; there is no other clock to it
		before, start := sent(t, n), time.Now()
		for range 500 {
			taps[0].Write(tt.frame)
		}
		one := sent(t, n) - before
		for range 500 {
			taps[1].Write(tt.frame)
		}
		both, took := sent(t, n)-before, time.Since(start).Seconds()
		// A bucket begins full, and fills at its rate.
		if most := float64(tt.limit/2) * (1 + took); one < uint64(tt.limit/2) || float64(one) > most+2 {
			t.Errorf("%s: %d of 500 frames of one port passed in %.2f s, want about %d", tt.name, one, took, tt.limit/2)
		}
		if most := float64(tt.limit) * (1 + took); both < uint64(tt.limit)-2 || float64(both) > most+2 {
			t.Errorf("%s: %d of 1000 frames passed in %.2f s, want about %d", tt.name, both, took, tt.limit)
		}
	}
	before := sent(t, n)
	for range 100 {
		taps[0].Write(frame("\x52\x54\x00\x00\x00\x01", "\x88\xb6", 46)) // of a host at another site
		taps[0].Write(frame("\x52\x54\x00\x00\x00\x66", "\x88\xb6", 46)) // of nobody
	}
	if k := sent(t, n) - before; k != 100 {
		t.Errorf("%d frames passed of 100 for a known host and 100 for an unknown one", k)
	}
	a, err := n.Apply(t.Context(), []l2ext.Wish{w})
	check(t, err)
	if a[0].Limited < 3000 {
		t.Errorf("%d frames are counted", a[0].Limited)
	}
	w.Policy.Limits.Broadcast = 30
	again, err := n.Apply(t.Context(), []l2ext.Wish{w})
	check(t, err)
	if again[0].Limited < a[0].Limited {
		t.Errorf("other limits made %d frames of %d", again[0].Limited, a[0].Limited)
	}
}

// TestDropsAreCountedOnce has rules that cannot be replaced for a while, and are in the end: what they have
// dropped is counted once.
func TestDropsAreCountedOnce(t *testing.T) {
	ns := nstest.New(t)
	check(t, ns.Sysctl("ipv6.conf.default.disable_ipv6", "1"), ns.Bridge("br0"))
	tap, err := ns.Tap("tap0")
	check(t, err, ns.Plug("tap0", "br0"))
	t.Cleanup(func() { tap.Close() })
	n := newNet(t, ns)
	w := prod("br0")
	w.Policy = l2ext.Policy{Limits: l2ext.Limits{Resolve: 40, Broadcast: 20, Multicast: 100, Unknown: 1}}
	counted := func() uint64 {
		a, err := n.Apply(t.Context(), []l2ext.Wish{w})
		check(t, err)
		return a[0].Limited
	}
	counted()
	var least, sent uint64
	for began := time.Now(); least == 0; least = counted() { // the port may have yet to forward
		if time.Since(began) > time.Minute {
			t.Fatal("nothing is over the limits")
		}
		for range 500 {
			tap.Write(frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46))
			sent++
		}
	}
	refused := errors.New("no memory")
	for range 3 {
		if err := n.keepDrops(func() error { return refused }); !errors.Is(err, refused) {
			t.Errorf("got %v", err)
		}
		if got := counted(); got < least || got > sent {
			t.Errorf("with rules that are not replaced %d frames of %d are counted, and were %d", got, sent, least)
		}
	}
	w.Policy.Limits.Broadcast = 30
	for range 2 {
		if got := counted(); got < least || got > sent {
			t.Errorf("with rules that are replaced %d frames of %d are counted, and were %d", got, sent, least)
		}
	}
}

// TestRulesAreKept has somebody flush the ruleset, and then ends.
func TestRulesAreKept(t *testing.T) {
	ns := nstest.New(t)
	n := newNet(t, ns)
	_, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	check(t, err)
	names := func() string {
		tables, err := c.ListTables()
		check(t, err)
		var all []string
		for _, t := range tables {
			all = append(all, t.Name)
		}
		return strings.Join(all, " ")
	}
	for range 2 {
		if got := names(); got != "longhaul-lhtun0" {
			t.Errorf("tables: %q", got)
		}
		c.FlushRuleset()
		check(t, c.Flush())
		_, err = n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
		check(t, err)
	}
	check(t, n.Close())
	if got := names(); got != "" {
		t.Errorf("after Close: tables %q", got)
	}
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "longhaul-lhtun9"}) // of a gateway that died
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "theirs"})
	check(t, c.Flush(), CleanupIn(t.Context(), Config{NetNS: ns.FD()}))
	if got := names(); got != "theirs" {
		t.Errorf("after Cleanup: tables %q", got)
	}
}

// TestBrake: of a storm nearly all is dropped by its first rule, and counted; broadcasts of
// another kind by the same port are none of it.
func TestBrake(t *testing.T) {
	for name, w := range map[string]l2ext.Wish{"secure": prod("br0"), "direct": prodDirect("br0")} {
		t.Run(name, func(t *testing.T) {
			n, tap := newLAN(t, machine(t))
			w.Policy.Limits = l2ext.Limits{Resolve: 40, Broadcast: 20, Multicast: 100, Unknown: 1}
			apply(t, n, w)
			left, chain := func() uint64 { return sent(t, n) }, "s100"
			if w.Direct != nil {
				left, chain = func() uint64 { c, _ := n.Traffic(100); return c.Sent }, "d100"
			}
			braked := func() (k uint64) {
				check(t, n.withRules(func(c *nftables.Conn) error {
					rules, err := c.GetRules(n.table(), &nftables.Chain{Name: chain, Table: n.table()})
					for _, r := range rules {
						k += counted(r)
					}
					return err
				}))
				return k
			}
			send := func(k int, kind string) (passed uint64) {
				before := left()
				for range k {
					_, err := tap.Write(frame("\xff\xff\xff\xff\xff\xff", kind, 46))
					check(t, err)
				}
				return left() - before
			}
			const storm = 3000
			start := time.Now()
			passed := send(storm, "\x08\x06")
			took := time.Since(start).Seconds()
			if passed < 20 || float64(passed) > 20*(1+took)+2 {
				t.Errorf("%d of %d questions passed in %.2f s, want about 20", passed, storm, took)
			}
			if k := braked(); k > storm-200 || float64(k) < storm-200*(1+took)-2 {
				t.Errorf("the brake has dropped %d in %.2f s, want about %d", k, took, storm-200)
			}
			if d := n.drops()[100][overLimit]; d != storm-passed {
				t.Errorf("%d are counted as dropped, %d did not pass", d, storm-passed)
			}
			if k := send(5, "\x88\xb6"); k != 5 {
				t.Errorf("%d of 5 broadcasts of another kind passed", k)
			}
		})
	}
}
