package hostnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// What hosts tell of themselves on a LAN does not all come to the overlay port:
// answers to ARP requests go from one LAN port to another. So a packet socket
// hears it at the ports. It is bound to no device, and asks for all kinds of
// frame: one for a kind, such as ETH_P_RARP, hears nothing on a port of a bridge,
// as the bridge takes frames before it.

const (
	// snoopBuffer is what waits for the reader, in bytes: some hundred frames.
	snoopBuffer = 256 << 10

	// snoopBurst frames are read in snoopPause at most: a storm of ARP must not
	// take a CPU here. What is lost is said again. Loop probes are heard all the while,
	// as the storm may be a loop's: snoopProbes of them.
	snoopBurst  = 500
	snoopProbes = 50
	snoopPause  = 100 * time.Millisecond

	// portFor is how long a port is taken to be on the same bridge.
	portFor = 5 * time.Second

	// maxPorts bounds the devices that are remembered.
	maxPorts = 1 << 14
)

// snoopFilter lets through ARP and RARP, neighbour solicitations and advertisements, IGMP
// and MLD, what DHCP servers send, and loop probes. Which tags, snoopFilterFor says.
var snoopFilter = []bpf.Instruction{
	0:  bpf.LoadAbsolute{Off: 12, Size: 2}, // type
	1:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: ether.TypeARP, SkipTrue: 20},
	2:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: ether.TypeRARP, SkipTrue: 19},
	3:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: probe.Type, SkipTrue: 18},
	4:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: ether.TypeIPv4, SkipTrue: 9},
	5:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ether.TypeIPv6, SkipTrue: 17},
	6:  bpf.LoadAbsolute{Off: 20, Size: 1}, // next header
	7:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_HOPOPTS, SkipTrue: 4},
	8:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 14},
	9:  bpf.LoadAbsolute{Off: 54, Size: 1}, // type: 135 or 136
	10: bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 135, SkipTrue: 12},
	11: bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 136, SkipTrue: 11, SkipFalse: 10},
	12: bpf.LoadAbsolute{Off: 54, Size: 1}, // the header behind the options, which MLD has
	13: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 8, SkipFalse: 9},
	14: bpf.LoadAbsolute{Off: 23, Size: 1}, // protocol
	15: bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_IGMP, SkipTrue: 6},
	16: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	17: bpf.LoadAbsolute{Off: 20, Size: 2}, // fragment offset
	18: bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
	19: bpf.LoadMemShift{Off: 14}, // length of the IP header
	20: bpf.LoadIndirect{Off: 14, Size: 2},
	21: bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ether.PortDHCPServer, SkipTrue: 1},
	22: bpf.RetConstant{Val: 1 << 16},
	23: bpf.RetConstant{Val: 0},
}

// snoop reports what hosts on the LAN ports tell of themselves, until ctx ends. It
// calls opened when it has begun to hear, or has failed to.
func (n *Net) snoop(ctx context.Context, opened func(), report func(l2ext.Sighting)) error {
	f, err := n.openSnoop()
	opened()
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	n.snooping.use(f)
	defer n.snooping.use(nil)
	if err := n.tuneSnoop(); err != nil {
		n.log.Warn("hosts in VLANs are not all heard", "err", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("opening the packet socket: %w", err)
	}
	s := snooper{n: n, f: f, raw: raw, frameRoom: make([]byte, 1<<16), told: make([]byte, auxRoom), ports: make(map[int]portAt)}
	for count, since := 0, time.Now(); ; count++ {
		frame, from, err := s.receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the packet socket: %w", err)
		}
		s.frame(time.Now(), from, frame, report)
		switch took := time.Since(since); {
		case took > snoopPause:
			count, since = 0, time.Now()
		case count > snoopBurst:
			if err := s.onlyProbes(ctx, since.Add(snoopPause), report); err != nil {
				return err
			}
		}
	}
}

// onlyProbes reports loop probes, and nothing else, until a time. What waits in the socket
// when it is called is thrown away.
func (s *snooper) onlyProbes(ctx context.Context, until time.Time, report func(l2ext.Sighting)) error {
	err := errors.Join(s.n.snooping.hearProbesOnly(), s.f.SetReadDeadline(until))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listening to probes: %w", err)
	}
	for probes := 0; probes < snoopProbes; {
		frame, from, err := s.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the packet socket: %w", err)
		}
		if probe.Is(frame) {
			probes++
			s.frame(time.Now(), from, frame, report)
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(time.Until(until)):
	}
	if err := errors.Join(s.n.snooping.hearAll(), s.f.SetReadDeadline(time.Time{})); err != nil && ctx.Err() == nil {
		return fmt.Errorf("listening to all again: %w", err)
	}
	return nil
}

// auxRoom is enough for what the kernel tells beside a frame.
const auxRoom = 64

// cameBy is how a frame has come.
type cameBy struct {
	device int
	vid    uint16 // of its tag; 0: it had none, or the socket is not told of any
}

// receive reads one frame, which is valid until the next, and tells how it has come.
func (s *snooper) receive() (frame []byte, by cameBy, err error) {
	var from unix.Sockaddr
	var n, told int
	wait := s.raw.Read(func(fd uintptr) bool {
		n, told, _, from, err = unix.Recvmsg(int(fd), s.frameRoom, s.told, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
	if wait != nil {
		return nil, by, wait // closed, or too late
	}
	if l, ok := from.(*unix.SockaddrLinklayer); ok {
		by = cameBy{device: l.Ifindex, vid: vidIn(s.told[:told])}
	}
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.EINTR) { // a device went down: others have not
		return nil, cameBy{}, nil
	}
	return s.frameRoom[:n], by, err
}

// attachFilter has the kernel give a socket only what a program lets through.
func attachFilter(fd int, program []bpf.Instruction) error {
	code, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assembling a filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(code))
	for i, c := range code {
		filter[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	return os.NewSyscallError("attaching a filter", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}))
}

// openSnoop opens the socket that hears all devices, but what they send.
func (n *Net) openSnoop() (f *os.File, err error) {
	return n.openPacket(packetSpec{filter: snoopFilterFor(nil), set: func(fd int) error {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1), // of tags
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, snoopBuffer))
	}})
}

// packetSpec is what a packet socket ought to be.
type packetSpec struct {
	filter []bpf.Instruction
	device int                // 0: all
	set    func(fd int) error // what else
}

// openPacket opens a packet socket. It hears nothing before its filter is there.
func (n *Net) openPacket(s packetSpec) (f *os.File, err error) {
	err = n.within(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("opening a packet socket: %w", err)
		}
		err = errors.Join(
			attachFilter(fd, s.filter),
			s.set(fd),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: s.device}),
		)
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("setting up the packet socket: %w", err)
		}
		f = os.NewFile(uintptr(fd), "packet socket")
		return nil
	})
	return f, err
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// snooper knows which device is a port of which segment.
type snooper struct {
	n         *Net
	f         *os.File
	raw       syscall.RawConn // of f
	frameRoom []byte
	told      []byte // beside a frame
	ports     map[int]portAt
	as        uint64 // of Net.changes
}

type portAt struct {
	name  string
	on    map[uint16]member // by the tag of its frames; 0: without
	until time.Time
}

// snooped is the segment of a frame, and its port.
type snooped struct {
	name   string
	vni    uint32
	direct bool // the segment is in mode direct
}

func (s *snooper) frame(now time.Time, by cameBy, frame []byte, report func(l2ext.Sighting)) {
	h, err := ether.Parse(frame)
	if err != nil {
		return
	}
	port := s.port(now, by.device)
	on, ok := port.on[by.vid]
	if !ok || by.vid != 0 && ether.Tagged(frame) { // under the tag is another
		return
	}
	p := snooped{name: port.name, vni: on.vni, direct: on.at.direct != 0}
	if h.Type == probe.Type { // in mode secure they come to the carrier
		if p.direct && probe.Is(frame) {
			report(l2ext.Sighting{VNI: p.vni, MAC: h.Src, Probe: bytes.Clone(frame)})
		}
		return
	}
	if _, ok := ether.MembershipOf(h, frame); ok {
		if p.direct {
			report(l2ext.Sighting{VNI: p.vni, MAC: h.Src, Report: bytes.Clone(frame)})
		}
		return
	}
	if mac, ip, ok := ether.Lease(h, frame); ok {
		report(l2ext.Sighting{VNI: p.vni, MAC: mac, IP: ip, Leased: true})
		return
	}
	if c, ok := ether.Snoop(h, frame); ok {
		report(l2ext.Sighting{VNI: p.vni, MAC: h.Src, Port: p.name, IP: c.IP, Announced: c.Announced, Router: c.Router})
	}
}

// port finds out what a device is, if that is not known or not for sure: a host may
// have spoken just before its bridge got a segment.
func (s *snooper) port(now time.Time, device int) portAt {
	if as := s.n.changes.Load(); as != s.as {
		s.as = as
		clear(s.ports)
	}
	if p := s.ports[device]; now.Before(p.until) {
		return p
	}
	if len(s.ports) >= maxPorts {
		clear(s.ports)
	}
	p := portAt{until: now.Add(portFor)}
	if l, err := s.n.linkByIndex(device); err == nil {
		on, until := s.n.tagsAt(now, device, l.Attrs().MasterIndex)
		p.name, p.on, p.until = l.Attrs().Name, on, until
	}
	s.ports[device] = p
	return p
}

// tagsAt tells of which segment the frames of a LAN port are, by their tags, and how long
// that is so.
func (n *Net) tagsAt(now time.Time, port, bridge int) (on map[uint16]member, until time.Time) {
	until = now.Add(portFor)
	members := n.membersOf(bridge)
	if len(members) == 0 || slices.ContainsFunc(members, func(m member) bool { return m.at.has(port) }) {
		return nil, until
	}
	var vlans []nl.BridgeVlanInfo
	if byVLAN(members) {
		vlans, until = n.recentVLANs(now, port)
	}
	on = make(map[uint16]member)
	for _, m := range members {
		for _, tag := range m.at.lan.tags(vlans) {
			on[tag] = m
		}
	}
	return on, until
}
