package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

const (
	// watchBuffer holds about 100 000 notifications. With the default of
	// 208 KiB the kernel drops them, and the library gives up, when a bridge
	// learns a few hundred hosts at once.
	watchBuffer = 16 << 20

	// watchAgain is how long a subscription that ended stays so: the kernel
	// tells faster than we read, and would at once again.
	watchAgain = 200 * time.Millisecond
)

// Watch reports the hosts on the LAN ports of all segments until ctx ends.
func (n *Net) Watch(ctx context.Context, report func(l2ext.Sighting)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	listening := make(chan struct{}) // closed when what is told from now on is heard, or cannot be
	once := sync.OnceFunc(func() { close(listening) })
	wg.Go(func() {
		n.again(ctx, "LAN ports are listened to again", func() error { return n.snoop(ctx, once, report) })
	})
	wg.Go(func() { n.watchTwins(ctx, report) })
	<-listening
	n.again(ctx, "forwarding database is read again", func() error { return n.watchOnce(ctx, report) })
	return nil
}

// again calls f until ctx ends.
func (n *Net) again(ctx context.Context, what string, f func() error) {
	for {
		err := f()
		if ctx.Err() != nil {
			return
		}
		n.log.Info(what, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchAgain):
		}
	}
}

// errEnded says that the kernel tells nothing any more.
var errEnded = errors.New("notifications ended")

// watchOnce subscribes, then lists what is there, then follows what changes.
func (n *Net) watchOnce(ctx context.Context, report func(l2ext.Sighting)) error {
	s, err := n.subscribe()
	if err != nil {
		return fmt.Errorf("subscribing to the forwarding database: %w", err)
	}
	// 1024: the reader must not wait for us with every notification.
	updates, ended := make(chan []netlink.Neigh, 1024), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer s.Close() // ends the reader's wait
	defer cancel()
	reader.Go(func() { ended <- relay(ctx, s, updates) })
	if err := n.reportAll(report); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return errors.Join(errEnded, err)
		case u := <-updates:
			for _, e := range u {
				n.reportOne(e, report)
			}
		case <-n.attached:
			n.ignorePorts(s)
			if err := n.reportAll(report); err != nil {
				return err
			}
		}
	}
}

// subscribe has the kernel tell of new neighbours, those of bridges among them.
func (n *Net) subscribe() (*nl.NetlinkSocket, error) {
	ns := netns.None()
	if n.ns.IsOpen() {
		ns = n.ns
	}
	s, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_NEIGH)
	if err != nil {
		return nil, err
	}
	if err := s.SetReceiveBufferSize(n.watchBuffer, true); err != nil {
		s.Close()
		return nil, err
	}
	n.ignorePorts(s)
	return s, nil
}

// relay hands on what the kernel tells until that fails or ctx ends.
func relay(ctx context.Context, s *nl.NetlinkSocket, updates chan<- []netlink.Neigh) error {
	for {
		messages, from, err := s.Receive()
		if err != nil {
			return err
		}
		if from.Pid != nl.PidKernel {
			continue // of a process that plays the kernel
		}
		list := make([]netlink.Neigh, 0, len(messages))
		for _, m := range messages {
			if m.Header.Type != unix.RTM_NEWNEIGH {
				continue
			}
			e, err := netlink.NeighDeserialize(m.Data)
			if err != nil {
				return fmt.Errorf("what the kernel tells of a neighbour: %w", err)
			}
			list = append(list, *e)
		}
		select {
		case updates <- list:
		case <-ctx.Done():
			return nil
		}
	}
}

// maxIgnored ports have their notifications dropped in the kernel. A socket's filters may
// take net.core.optmem_max, 20 KiB by default before Linux 6.8: that is 720 ports, and
// while a filter replaces another both count.
const maxIgnored = 300

// ignorePorts has the kernel keep to itself what it would tell of our own ports:
// it echoes each entry that we make, and an evacuation makes thousands. It only spares
// work, as reportOne looks at the port itself: where the kernel takes no filter, it tells all.
func (n *Net) ignorePorts(s *nl.NetlinkSocket) {
	err := attachFilter(s.GetFd(), portFilter(n.ports()))
	if err == nil {
		return
	}
	n.log.Debug("kernel tells of the gateway's own ports, too", "err", err)
	// The filter before stays otherwise. If there was none, or it cannot be removed, nothing is lost.
	_ = unix.SetsockoptInt(s.GetFd(), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}

// portFilter drops what is of a device in ports, each of them in host byte order in
// struct ndmsg (linux/neighbour.h) behind struct nlmsghdr.
func portFilter(ports []int) []bpf.Instruction {
	const index = unix.SizeofNlMsghdr + 4 // of ndm_ifindex
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: index, Size: 4}}
	for _, port := range ports[:min(len(ports), maxIgnored)] {
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], uint32(port)) // but BPF loads big-endian
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[:]), SkipTrue: 1}, bpf.RetConstant{})
	}
	return append(program, bpf.RetConstant{Val: 1 << 16})
}

// ports are the gateway's own, of all segments.
func (n *Net) ports() (ports []int) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, a := range n.segments {
		for _, port := range []int{a.port, a.direct} {
			if port != 0 {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// reportAll lists all hosts that the bridges know.
func (n *Net) reportAll(report func(l2ext.Sighting)) error {
	var list []netlink.Neigh
	err := n.ask(func(h *netlink.Handle) (err error) {
		list, err = h.NeighList(0, unix.AF_BRIDGE)
		return err
	})
	if err != nil {
		return fmt.Errorf("listing the forwarding database: %w", err)
	}
	for _, e := range list {
		n.reportOne(e, report)
	}
	return nil
}

// reportOne reports an entry if it is a host behind a LAN port. Permanent
// entries are addresses of the machine's own devices.
func (n *Net) reportOne(e netlink.Neigh, report func(l2ext.Sighting)) {
	if e.Family != unix.AF_BRIDGE || e.MasterIndex == 0 || e.State&netlink.NUD_PERMANENT != 0 || len(e.HardwareAddr) != 6 {
		return
	}
	members := n.membersOf(e.MasterIndex)
	if slices.ContainsFunc(members, func(m member) bool { return m.at.has(e.LinkIndex) }) {
		return
	}
	for _, m := range members {
		l := m.at.lan
		if l.filters && int(l.inside()) != e.Vlan {
			continue
		}
		report(l2ext.Sighting{VNI: m.vni, MAC: l2ext.MAC(e.HardwareAddr), Somewhere: !l.filters && !l.alone()})
	}
}

// has tells whether a port is the gateway's own.
func (a attachment) has(port int) bool { return a.port == port || a.direct == port }

// twinsEvery is how often the kernel is asked for foreign senders.
const twinsEvery = time.Second

// watchTwins reports, in mode direct, hosts of other sites that send from LAN ports:
// the bridge does not learn them, as it has entries for them that stay.
func (n *Net) watchTwins(ctx context.Context, report func(l2ext.Sighting)) {
	tick := time.NewTicker(twinsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, vni := range n.directSegments() {
			for _, mac := range n.twinsOf(vni) {
				report(l2ext.Sighting{VNI: vni, MAC: mac})
			}
		}
	}
}

func (n *Net) directSegments() (vnis []uint32) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for vni, a := range n.segments {
		if a.direct != 0 {
			vnis = append(vnis, vni)
		}
	}
	return vnis
}
