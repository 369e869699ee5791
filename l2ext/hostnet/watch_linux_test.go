package hostnet

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestPortFilter has the kernel tell of what is learned at a LAN port, and not of
// entries that are made for the gateway's own.
func TestPortFilter(t *testing.T) {
	ns := nstest.New(t)
	check(t, ns.Bridge("br0"), nstest.Veth(ns, "lan0", ns, "far0"), ns.Plug("lan0", "br0"))
	n := newNet(t, ns)
	_, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	s, err := n.subscribe()
	check(t, err)
	defer s.Close()
	lan, err := n.nl.LinkByName("lan0")
	check(t, err)
	for i := range byte(10) {
		check(t, n.Point(100, []l2ext.Entry{{MAC: l2ext.MAC{2, 8, 0, 0, 0, i}, Site: 16}}))
	}
	last := net.HardwareAddr{2, 9, 0, 0, 0, 1}
	check(t, n.nl.NeighSet(&netlink.Neigh{LinkIndex: lan.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
		State: netlink.NUD_REACHABLE, HardwareAddr: last}))
	for {
		messages, _, err := s.Receive()
		check(t, err)
		for _, m := range messages {
			e, err := netlink.NeighDeserialize(m.Data)
			check(t, err)
			if e.HardwareAddr[1] == 8 {
				t.Fatalf("told of %+v", e)
			}
			if slices.Equal(e.HardwareAddr, last) {
				return
			}
		}
	}
}

// TestPortFilterTooLong has the kernel refuse the filter, at first and when ports are
// added: hosts are reported all the same, by one subscription. With the 20 KiB that
// kernels before 6.8 give, it takes the longest filter in place of another like it.
func TestPortFilterTooLong(t *testing.T) {
	ns := nstest.New(t)
	check(t, ns.Bridge("br0"), nstest.Veth(ns, "lan0", ns, "far0"), ns.Plug("lan0", "br0"))
	if err := ns.Sysctl("core.optmem_max", "20480"); errors.Is(err, os.ErrNotExist) {
		t.Skip("before Linux 6.8 net.core.optmem_max is the machine's") // no nstest.Skip: it is no fault of the machine
	} else {
		check(t, err)
	}
	var log bytes.Buffer
	n, err := New(Config{NetNS: ns.FD(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	check(t, err)
	defer n.Close()
	s, err := n.subscribe()
	check(t, err)
	defer s.Close()
	for range 3 {
		check(t, attachFilter(s.GetFd(), portFilter(make([]int, 2*maxIgnored))))
	}
	check(t, ns.Sysctl("core.optmem_max", "8"))
	lan, err := n.nl.LinkByName("lan0")
	check(t, err)
	learn := func(last byte) l2ext.MAC {
		mac := l2ext.MAC{2, 9, 0, 0, 0, last}
		check(t, n.nl.NeighSet(&netlink.Neigh{LinkIndex: lan.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
			State: netlink.NUD_REACHABLE, HardwareAddr: mac[:]}))
		return mac
	}
	seen := make(chan l2ext.Sighting, 64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Watch(ctx, func(s l2ext.Sighting) { seen <- s }) }()
	for i := range byte(3) { // Apply has Watch attach the filter again
		_, err = n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
		check(t, err)
		check(t, n.Point(100, []l2ext.Entry{{MAC: l2ext.MAC{2, 8, 0, 0, 0, i}, Site: 16}}))
		for mac := learn(i); ; {
			s := <-seen
			if s.MAC[1] == 8 {
				t.Errorf("own entry reported: %+v", s)
			}
			if s.MAC == mac {
				break
			}
		}
	}
	cancel()
	check(t, <-ended)
	if strings.Contains(log.String(), "read again") {
		t.Errorf("log:\n%s", log.String())
	}
}

// TestWatchOverflow lets the kernel tell more than there is room for, while the
// reader is held up: it loses notifications, and all is listed again.
func TestWatchOverflow(t *testing.T) {
	ns := nstest.New(t)
	check(t, ns.Bridge("br0"), nstest.Veth(ns, "lan0", ns, "far0"), ns.Plug("lan0", "br0"))
	n := newNet(t, ns)
	n.watchBuffer = 4096
	_, err := n.Apply(t.Context(), []l2ext.Wish{prod("br0")})
	check(t, err)
	lan, err := n.nl.LinkByName("lan0")
	check(t, err)
	const hosts = 5000
	learn := func(i int) {
		mac := []byte{2, 9, 0, 0, byte(i >> 8), byte(i)}
		check(t, n.nl.NeighSet(&netlink.Neigh{LinkIndex: lan.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
			State: netlink.NUD_REACHABLE, HardwareAddr: mac}))
	}
	learn(0)
	seen := make(chan l2ext.Sighting)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- n.Watch(ctx, func(s l2ext.Sighting) {
			select {
			case seen <- s:
			case <-ctx.Done():
			}
		})
	}()
	<-seen // it watches, and has to wait with the rest
	for i := range hosts {
		learn(i)
	}
	all := make(map[l2ext.MAC]bool)
	for deadline := time.After(l2exttest.Patience); len(all) < hosts; {
		select {
		case s := <-seen:
			if s.MAC[1] == 9 {
				all[s.MAC] = true
			}
		case <-deadline:
			t.Fatalf("%d hosts of %d were reported", len(all), hosts)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCloseBesideWatch closes the Net just before Watch asks the kernel what is there:
// the race detector finds what nothing puts in order.
func TestCloseBesideWatch(t *testing.T) {
	ns := nstest.New(t)
	n, err := New(Config{NetNS: ns.FD()})
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		time.Sleep(50 * time.Millisecond) // no channel: it would put Close before Watch
		ended <- n.Watch(ctx, func(l2ext.Sighting) {})
	}()
	check(t, n.Close(), <-ended)
}
