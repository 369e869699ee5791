package hostnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Apply makes the wished segments, and removes those made before.
func (n *Net) Apply(ctx context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	n.apply.Lock()
	defer n.apply.Unlock()
	if err := errors.Join(n.unmuteLeft(), n.removeOthers(ctx, wishes)); err != nil {
		return nil, err
	}
	n.applied = nil
	answers := make([]l2ext.Attached, len(wishes))
	if len(wishes) == 0 {
		return answers, errors.Join(n.removeRules(), n.removeGuard())
	}
	tun, err := n.needTun()
	if err != nil {
		return nil, err
	}
	for i, w := range wishes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		answers[i] = n.attach(w, tun)
	}
	if n.storm.rules != "" && !n.tableThere(n.table()) {
		n.log.Info("limits of broadcasts were taken away and are made again")
		n.storm.rules = ""
	}
	n.limitStorms(wishes)
	n.openGuarded(wishes, answers)
	drops, others := n.drops(), n.otherVLANs()
	for i, w := range wishes {
		d := drops[w.VNI]
		answers[i].Limited, answers[i].Forbidden, answers[i].Kept, answers[i].Shut, answers[i].NoListener = d[overLimit], d[forbidden], d[kept], d[shut], d[noListener]
		answers[i].OtherVLANs = others[w.VNI][overLimit]
	}
	if err := n.tuneSnoop(); err != nil {
		n.log.Warn("hosts in VLANs are not all heard", "err", err)
	}
	return answers, nil
}

// openGuarded has the segments in mode direct carry frames, once the kernel
// guards them.
func (n *Net) openGuarded(wishes []l2ext.Wish, answers []l2ext.Attached) {
	guarded := errors.Join(n.guardDirect(wishes), n.storm.err)
	for i, w := range wishes {
		if w.Direct != nil && answers[i].Err == nil {
			answers[i].Err = n.openDirect(w, guarded)
		}
	}
}

// removeOthers removes segments of ours that are not wished.
func (n *Net) removeOthers(ctx context.Context, wishes []l2ext.Wish) error {
	keep, bridges := make(map[string]bool), make(map[string]bool)
	for _, w := range wishes {
		for _, name := range devicesOf(w) {
			keep[name] = true
		}
		bridges[w.Bridge] = true
	}
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("listing devices: %w", err)
	}
	for _, l := range links {
		if isOurs(l) && !keep[l.Attrs().Name] {
			n.forgetNeighbours(l)
			if err := n.nl.LinkDel(l); err != nil && !notFound(err) {
				return fmt.Errorf("removing device %s: %w", l.Attrs().Name, err)
			}
		}
	}
	n.mu.Lock()
	for vni, a := range n.segments {
		if keep[deviceName(vni)] {
			continue
		}
		if a.fast != nil {
			a.fast.close() // the device may have gone before it
		}
		delete(n.segments, vni)
	}
	n.mu.Unlock()
	_, err = n.removeBridges(ctx, bridges)
	return err
}

// removeBridges removes bridges of ours that are not to be kept and into which
// nothing is plugged, and returns the names of those that are in use.
func (n *Net) removeBridges(ctx context.Context, keep map[string]bool) (inUse []string, err error) {
	links, err := n.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing devices: %w", err)
	}
	ports := make(map[int]int)
	for _, l := range links {
		ports[l.Attrs().MasterIndex]++
	}
	for _, l := range links {
		a := l.Attrs()
		if !strings.HasPrefix(a.Alias, bridgeMark) || keep[a.Name] {
			continue
		}
		if ports[a.Index] > 0 {
			inUse = append(inUse, a.Name)
			continue
		}
		if err := n.nl.LinkDel(l); err != nil && !notFound(err) {
			return inUse, fmt.Errorf("removing bridge %s: %w", a.Name, err)
		}
		n.log.Info("removed", "device", a.Name)
	}
	return inUse, ctx.Err()
}

const (
	segmentMark = mark + "segment:"
	bridgeMark  = mark + "bridge:"
	carrierMark = mark + "carrier"
)

// isOurs tells whether a device is the overlay port of a segment that a gateway
// has made.
func isOurs(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Alias, segmentMark) }

func deviceName(vni uint32) string { return fmt.Sprintf("lhvx%d", vni) }

// attach makes one segment.
func (n *Net) attach(w l2ext.Wish, tun int) (a l2ext.Attached) {
	br, adopted, err := n.needBridge(w)
	if err != nil {
		return l2ext.Attached{Err: err}
	}
	var port netlink.Link
	var tap *fastPort
	if w.Mode == l2ext.SecureFast {
		port, tap, err = n.needFast(w, br)
	} else {
		n.closeFast(w.VNI)
		port, err = n.needPort(w, br, tun)
	}
	if err != nil {
		return l2ext.Attached{Adopted: adopted, Err: err}
	}
	at := attachment{port: port.Attrs().Index, bridge: br.Attrs().Index, fast: tap}
	if w.Direct != nil {
		if err := n.attachDirect(w, br, &at); err != nil {
			return l2ext.Attached{Adopted: adopted, Err: err}
		}
	}
	if at.lan, err = n.lanOf(w, port, br); err != nil {
		return l2ext.Attached{Adopted: adopted, Err: err}
	}
	n.mu.Lock()
	before := n.segments[w.VNI]
	n.segments[w.VNI] = at
	n.mu.Unlock()
	if before.bridge != at.bridge || before.port != at.port || before.direct != at.direct || before.lan != at.lan {
		n.changes.Add(1)
	}
	select { // have Watch look at what the bridge knows: it may be new, or a notification was missed
	case n.attached <- struct{}{}:
	default:
	}
	a = l2ext.Attached{Device: port.Attrs().Name, Adopted: adopted}
	if tap != nil {
		a.Port, a.UDPSegments = tap, tap.udp
	}
	if br, err = n.nl.LinkByName(w.Bridge); err != nil { // again: its MAC follows its ports
		return l2ext.Attached{Err: fmt.Errorf("finding bridge %s: %w", w.Bridge, err)}
	}
	copy(a.Bridge[:], br.Attrs().HardwareAddr)
	a.MTU = br.Attrs().MTU
	if s := port.Attrs().Statistics; s != nil {
		a.Delivered = s.RxPackets
	}
	if w.Direct == nil {
		a.Err = n.setEntries(at, w.Entries)
		return a
	}
	a.Device = directName(w.VNI)
	a.Err = n.setDirectEntries(at, withGateways(w))
	stay := func(mac l2ext.MAC) bool { return w.Direct.Adopted.Neighbours && at.adopts && !at.left.gone[mac] }
	if err := n.setNeighbours(at.bridge, w.Direct.Neighbours, stay); err != nil {
		n.log.Debug("questions are not all answered by the bridge", "segment", w.Name, "err", err)
	}
	return a
}

// needBridge finds the segment's bridge, or makes one.
func (n *Net) needBridge(w l2ext.Wish) (br netlink.Link, adopted bool, err error) {
	br, err = n.nl.LinkByName(w.Bridge)
	if notFound(err) {
		br, err = n.makeBridge(w)
		return br, false, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("finding bridge %s: %w", w.Bridge, err)
	}
	if br.Type() != "bridge" {
		return nil, false, fmt.Errorf("device %s is a %s: %w", w.Bridge, br.Type(), l2ext.ErrNoBridge)
	}
	ours := strings.HasPrefix(br.Attrs().Alias, bridgeMark)
	if ours && br.Attrs().RawFlags&unix.IFF_UP == 0 {
		err = n.nl.LinkSetUp(br)
	}
	return br, !ours, err
}

// makeBridge makes a bridge that forwards at once, floods multicast (nobody
// asks for memberships on it) and gives the machine no address on the segment.
func (n *Net) makeBridge(w l2ext.Wish) (netlink.Link, error) {
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.HardwareAddr = w.Bridge, w.MTU, w.Machine[:]
	if w.Machine == (l2ext.MAC{}) {
		la.HardwareAddr = randomMAC(0x0a)
	}
	off := false
	if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: la, MulticastSnooping: &off}); err != nil {
		return nil, fmt.Errorf("making bridge %s: %w", w.Bridge, err)
	}
	br, err := n.claim(w.Bridge, bridgeMark+w.Name)
	if err != nil {
		return nil, err
	}
	if w.Direct != nil { // or it could not answer for hosts' IPv6 addresses
		if err := n.enableIPv6(w.Bridge); err != nil {
			n.log.Debug("questions for IPv6 addresses are not answered by the bridge", "bridge", w.Bridge, "err", err)
		}
	}
	if err := n.nl.LinkSetUp(br); err != nil {
		return nil, fmt.Errorf("setting up bridge %s: %w", w.Bridge, err)
	}
	return br, nil
}

// claim finds a device that was just made and gives it our mark: what has none is
// nobody's to take up or clean away. The kernel gives it no address.
func (n *Net) claim(name, alias string) (netlink.Link, error) {
	l, err := n.nl.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("finding device %s: %w", name, err)
	}
	if err := n.nl.LinkSetAlias(l, alias); err != nil {
		return nil, fmt.Errorf("marking device %s: %w", name, err)
	}
	n.noAddress(l)
	return l, nil
}

// noAddress keeps the kernel from giving the device an IPv6 address, by which
// the guests could reach the machine.
func (n *Net) noAddress(l netlink.Link) {
	if err := n.nl.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		n.log.Debug("address generation stays on", "device", l.Attrs().Name, "err", err)
	}
}

// needPort finds the segment's VXLAN device as it ought to be, or makes it.
func (n *Net) needPort(w l2ext.Wish, br netlink.Link, tun int) (netlink.Link, error) {
	name := deviceName(w.VNI)
	mtu := max(w.MTU, br.Attrs().MTU)
	l, err := n.nl.LinkByName(name)
	if err == nil {
		if !strings.HasPrefix(l.Attrs().Alias, segmentMark) {
			return nil, fmt.Errorf("device %s is there and is not ours", name)
		}
		if isPort(l, w.VNI, tun) {
			return l, n.setPort(w, l, br, portSpec{mtu: mtu, many: w.Direct == nil})
		}
		if err := n.nl.LinkDel(l); err != nil {
			return nil, fmt.Errorf("removing device %s: %w", name, err)
		}
	} else if !notFound(err) {
		return nil, fmt.Errorf("finding device %s: %w", name, err)
	}
	return n.makePort(w, br, portSpec{name: name, mtu: mtu, tun: tun, many: w.Direct == nil})
}

func isPort(l netlink.Link, vni uint32, tun int) bool {
	vx, ok := l.(*netlink.Vxlan)
	return ok && vx.VxlanId == int(vni) && vx.VtepDevIndex == tun && vx.Port == vxlan.Port && !vx.Learning
}

// portSpec is what a port of ours ought to be.
type portSpec struct {
	name  string
	mtu   int
	tun   int
	many  bool // it gets frames that are not for one known host
	stays bool // it is left down, if it is; somebody else sets it up
}

func (n *Net) makePort(w l2ext.Wish, br netlink.Link, s portSpec) (netlink.Link, error) {
	la := netlink.NewLinkAttrs()
	la.Name, la.MTU, la.HardwareAddr = s.name, s.mtu, randomMAC(0xfe, 0xff)
	self, everyone := vxlan.Self.Addr().As16(), vxlan.Everyone.Addr().As16()
	err := n.nl.LinkAdd(&netlink.Vxlan{
		LinkAttrs: la, VxlanId: int(w.VNI), VtepDevIndex: s.tun, Port: vxlan.Port,
		SrcAddr: self[:], Group: everyone[:], Learning: false, UDP6ZeroCSumTx: true, UDP6ZeroCSumRx: true,
	})
	if err != nil {
		return nil, fmt.Errorf("making device %s: %w", s.name, err)
	}
	l, err := n.claim(s.name, segmentMark+w.Name)
	if err != nil {
		return nil, err
	}
	return l, n.setPort(w, l, br, s)
}

// setPort plugs the device into the bridge. Learning goes off before it comes
// up: not one frame may teach the bridge that a host of this site is remote.
func (n *Net) setPort(w l2ext.Wish, l, br netlink.Link, s portSpec) error {
	a := l.Attrs()
	fail := func(what string, err error) error {
		return fmt.Errorf("setting up device %s: %s: %w", a.Name, what, err)
	}
	if a.MTU != s.mtu {
		if err := n.nl.LinkSetMTU(l, s.mtu); err != nil {
			return fail("MTU", err)
		}
	}
	up := a.RawFlags&unix.IFF_UP != 0
	if a.MasterIndex != br.Attrs().Index || n.movesVLAN(w, a.Index) {
		if err := n.plug(l, br); err != nil {
			return fail("plugging into "+br.Attrs().Name, err)
		}
		up = false
	}
	p, err := n.nl.LinkGetProtinfo(l)
	if err != nil {
		return fail("asking the bridge", err)
	}
	if p.Learning {
		if err := n.nl.LinkSetLearning(l, false); err != nil {
			return fail("learning off", err)
		}
	}
	if !p.Guard { // never let a bridge of another site take part in our spanning tree
		if err := n.nl.LinkSetGuard(l, true); err != nil {
			return fail("BPDU guard", err)
		}
	}
	if p.Isolated != w.Shared {
		if err := n.nl.LinkSetIsolated(l, w.Shared); err != nil {
			return fail("isolation from other ports of ours", err)
		}
	}
	if err := n.setVLAN(w, l, br); err != nil {
		return fail("VLAN", err)
	}
	if flood := s.many && w.Policy.Unknown == l2ext.UnknownLimited; p.Flood != flood {
		if err := n.nl.LinkSetFlood(l, flood); err != nil {
			return fail("flooding of unknown unicast", err)
		}
	}
	if suppress := w.Direct != nil; p.NeighSuppress != suppress {
		if err := n.nl.LinkSetBrNeighSuppress(l, suppress); err != nil {
			return fail("answers for known hosts", err)
		}
	}
	if err := errors.Join(n.raw.execute(multicastTo(a.Index, s.many)), n.flood(l, s.many)); err != nil {
		return fail("multicast", err)
	}
	if !up && !s.stays {
		if err := n.nl.LinkSetUp(l); err != nil {
			return fail("up", err)
		}
	}
	return nil
}

// plug puts a port into a bridge, down, so that it teaches that nothing before it is set
// up. If it is in one, it leaves it: with it goes what that knows of the port, its VLANs
// and the hosts behind it.
func (n *Net) plug(l, br netlink.Link) error {
	a := l.Attrs()
	if a.RawFlags&unix.IFF_UP != 0 {
		if err := n.nl.LinkSetDown(l); err != nil {
			return err
		}
	}
	if a.MasterIndex != 0 {
		if err := n.nl.LinkSetNoMaster(l); err != nil {
			return err
		}
	}
	if a.MasterIndex != br.Attrs().Index {
		if err := n.pinMAC(br); err != nil {
			return fmt.Errorf("keeping the bridge's MAC: %w", err)
		}
	}
	n.applied = nil // the bridge gives it VLANs
	return n.nl.LinkSetMaster(l, br)
}

// pinMAC sets the MAC of a bridge without ports to what it is. Otherwise it
// would take ours, and lose it when we leave; with another port it keeps the
// lowest of these, which ours never is.
func (n *Net) pinMAC(br netlink.Link) error {
	links, err := n.nl.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == br.Attrs().Index {
			return nil
		}
	}
	if len(br.Attrs().HardwareAddr) == 0 {
		return nil // it has had ports once, and has no MAC now
	}
	return n.nl.LinkSetHardwareAddr(br, br.Attrs().HardwareAddr)
}

// randomMAC makes a locally administered MAC that begins with the given bytes.
// It must be random: both sites see the bridges of both.
func randomMAC(first ...byte) net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac) // never fails
	copy(mac, first)
	return mac
}
