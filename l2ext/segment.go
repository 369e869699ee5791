package l2ext

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// MAC is an Ethernet address.
type MAC = ether.MAC

// Segment is a Layer 2 network that is stretched between sites, as the
// operator wishes it at this site.
type Segment struct {
	Name   string   // the same at all sites
	VNI    uint32   // 1 to 2^24-1, the same at all sites
	Bridge string   // bridge at this site; made if there is none
	VLAN   uint16   // of the bridge, 1 to MaxVLAN; 0 means frames without a tag
	MTU    int      // bytes; 0 means 1500. IPv6 has at least 1280, see tooBig
	Sites  []string // the other sites on the segment
	Mode   Mode     // how frames go there, the same at all sites; "" means Secure
	Policy Policy   // what crosses

	// Everywhere: it is on all sites that the gateway knows, of which more may be met.
	Everywhere bool
}

// DefaultMTU is the MTU of a segment that names none, in bytes.
const DefaultMTU = 1500

// MaxVLAN is the greatest number of a VLAN that a segment can be.
const MaxVLAN = ether.MaxVID

// maxMTU leaves room for an Ethernet header and a VLAN tag in frag.MaxFrame.
const maxMTU = 9000

// maxName is the longest name of a Linux device, IFNAMSIZ without its zero.
const maxName = 15

// check refuses a segment that cannot be.
func (s Segment) check(self string) error {
	switch {
	case s.VNI < 1 || s.VNI > vxlan.MaxVNI:
		return fmt.Errorf("segment %s: VNI %d is not in 1..%d", s.Name, s.VNI, vxlan.MaxVNI)
	case s.Name == "" || len(s.Name) > announce.MaxSite || strings.ContainsFunc(s.Name, odd):
		return fmt.Errorf("segment %q: the name must have 1 to %d bytes of a-z, 0-9 and -", s.Name, announce.MaxSite)
	case !deviceName(s.Bridge):
		return fmt.Errorf("segment %s: bridge %q is no name of a network device", s.Name, s.Bridge)
	case s.VLAN > MaxVLAN:
		return fmt.Errorf("segment %s: VLAN %d is not in 1..%d", s.Name, s.VLAN, MaxVLAN)
	case s.VLAN != 0 && s.Mode == Direct:
		return fmt.Errorf("segment %s: mode direct cannot take VLAN %d from bridge %s: the kernel would carry its frames with their tags; use secure or secure-fast, or a bridge that has only this VLAN, without tags", s.Name, s.VLAN, s.Bridge)
	case s.MTU != 0 && (s.MTU < 576 || s.MTU > maxMTU):
		return fmt.Errorf("segment %s: MTU %d is not in 576..%d", s.Name, s.MTU, maxMTU)
	case slices.Contains(s.Sites, self):
		return fmt.Errorf("segment %s: site %s is this one, and must not be listed", s.Name, self)
	}
	if err := s.Policy.Check(); err != nil {
		return fmt.Errorf("segment %s: %w", s.Name, err)
	}
	if err := s.Mode.Check(); err != nil {
		return fmt.Errorf("segment %s: %w", s.Name, err)
	}
	if err := s.Policy.CarriedBy(s.Mode); err != nil {
		return fmt.Errorf("segment %s: %w", s.Name, err)
	}
	for _, site := range s.Sites {
		if site == "" || len(site) > announce.MaxSite {
			return fmt.Errorf("segment %s: site %q must have 1 to %d bytes", s.Name, site, announce.MaxSite)
		}
	}
	return nil
}

// odd tells what no name has that operators give.
func odd(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }

// deviceName tells whether Linux takes name for a network device (net/core/dev.c,
// dev_valid_name).
func deviceName(name string) bool {
	return name != "" && len(name) <= maxName && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == 0x7f })
}

// checkAll refuses segments that cannot be together.
func checkAll(self string, segments []Segment) error {
	var errs []error
	vnis := make(map[uint32]bool)
	for i, s := range segments {
		errs = append(errs, s.check(self))
		if vnis[s.VNI] {
			errs = append(errs, fmt.Errorf("segment %s: VNI %d is used twice", s.Name, s.VNI))
		}
		vnis[s.VNI] = true
		for _, o := range segments[:i] {
			if err := s.besides(o); err != nil {
				errs = append(errs, fmt.Errorf("segment %s: %w", s.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// besides refuses another segment's bridge, if the two cannot be told apart there.
func (s Segment) besides(o Segment) error {
	switch {
	case s.Bridge != o.Bridge:
		return nil
	case s.VLAN == o.VLAN && s.VLAN == 0:
		return fmt.Errorf("bridge %s is used twice, also by segment %s: segments of one bridge must be different VLANs of it", s.Bridge, o.Name)
	case s.VLAN == o.VLAN:
		return fmt.Errorf("VLAN %d of bridge %s is used twice, also by segment %s", s.VLAN, s.Bridge, o.Name)
	case s.Mode.orDefault() != o.Mode.orDefault(), s.Mode == Direct:
		return fmt.Errorf("on bridge %s is segment %s, too: both must have mode %s, or both %s", s.Bridge, o.Name, Secure, SecureFast)
	}
	return nil
}

// A Carrier takes frames and messages to other sites. All methods are safe for
// concurrent use.
type Carrier interface {
	// SendFrame sends a datagram of at most MaxDatagram bytes, which may be
	// lost or overtaken. It borrows b and does not wait for the network.
	SendFrame(site string, b []byte) error

	// MaxDatagram is the longest datagram that can be sent to the site now,
	// in bytes; 0 when none can.
	MaxDatagram(site string) int

	// SendUrgent sends a message that arrives, and in order, for as long as
	// the link to the site is up. It takes b. It may wait until ctx ends; an
	// error means that the link is, or goes, down.
	SendUrgent(ctx context.Context, site string, b []byte) error
}

// Express takes datagrams that are sealed already to other sites, beside the link.
// All methods are safe for concurrent use.
type Express interface {
	// Secret is what only the two ends of the link to a site know, exported for
	// SecretLabel from its connection: of another connection it is another. It
	// fails, and says why, while there can be no datagrams.
	Secret(site string) (Secret, error)

	// Size is the longest datagram that the path to the site carries, in bytes.
	Size(site string) int

	// Send sends datagrams of size bytes, of which the last may be shorter,
	// together at most 64 KiB. It borrows b. It may wait for their turn under
	// the link's cap, but not for the network.
	Send(site string, b []byte, size int) error
}

// Secret is the root of the keys of datagrams between two sites, and SecretLabel
// what TLS exports it for.
type Secret = fast.Secret

// SecretLabel is for the exporter of TLS.
const SecretLabel = fast.Label

// A Port is the overlay port of a segment in mode secure-fast, for messages of
// package fast. Its methods may be called at the same time, but Read and Next by
// one goroutine. Whoever made it closes it.
type Port interface {
	// Read reads the next message from the bridge. It waits for it; after the
	// port has been closed it fails.
	Read(b []byte) (n int, err error)

	// Next is Read, but returns 0 when no message is there now.
	Next(b []byte) (n int, err error)

	// Write gives a message to the bridge. It borrows b and does not wait.
	Write(b []byte) error

	// OnlyTCP has the kernel cut UDP to packets before it is read here, from now on.
	OnlyTCP() error
}

// A Host makes a machine's network what it is wished to be. hostnet is the real
// one, l2exttest has one that prints its state; both pass l2exttest.TestHost.
// All methods are safe for concurrent use, except that ReadPacket is called by
// one goroutine.
type Host interface {
	// Apply makes the wished segments, with exactly the wished entries, and
	// removes what an earlier wish had made. The same wish twice changes
	// nothing. The answer has one element for each wish, in order; the error
	// is for what concerns all of them.
	Apply(ctx context.Context, wishes []Wish) ([]Attached, error)

	// Point adds entries to those of one segment, or removes those whose
	// Site is 0, without a look at the others. It is the fast way for a flip.
	Point(vni uint32, entries []Entry) error

	// Watch reports each host that appears on a LAN port of a segment's
	// bridge, and first those that are there, until ctx ends. After it has
	// missed some it reports all again. It reports as well what hosts on these
	// ports tell of themselves with ARP, RARP and neighbour discovery, and
	// what DHCP servers there give them; of a storm only a part. In mode Direct,
	// loop probes and what hosts and routers say of multicast groups as well.
	// Reports may come from two goroutines.
	Watch(ctx context.Context, report func(Sighting)) error

	// Mute keeps broadcast and multicast from a port until Unmute, so that a VM
	// that is not running yet does not read minutes of them when it comes to
	// run. Neither is undone by Apply; both may be repeated. Close unmutes all,
	// and what a gateway that died has muted is unmuted by the next one's first
	// Apply.
	Mute(port string) error

	// Unmute ends that. A port that is gone is no error.
	Unmute(port string) error

	// Heard tells how long ago a host on a LAN port of a segment sent its last
	// frame, to within some 10 ms.
	Heard(vni uint32, mac MAC) (ago time.Duration, ok bool)

	// PortSegments tells on which segments a port, such as a VM's tap, may be: those
	// of its bridge, as far as it is known to be in their VLANs. They come in order.
	PortSegments(port string) (vnis []uint32)

	// ReadPacket reads one packet that the kernel sends to the carrier, see
	// l2ext/vxlan. It waits until there is one; after Close it fails.
	ReadPacket(b []byte) (n int, err error)

	// WritePacket gives a packet from the carrier to the kernel. It borrows b.
	WritePacket(b []byte) error

	// Traffic tells what the kernel has carried of a segment in mode Direct; ok
	// is false when there is none.
	Traffic(vni uint32) (t Traffic, ok bool)

	// Capture calls f with each frame that the kernel carries of a segment in mode
	// Direct, until ctx ends, f fails or the segment has gone. Frames that come
	// faster than f takes them are left out; missed is how many.
	Capture(ctx context.Context, vni uint32, o CaptureOptions, f func(Captured) error) (missed uint64, err error)

	// Close ends the carrier. Segments lose their overlay ports, and bridges
	// stay.
	Close() error
}

// Wish is one segment as a Host should make it.
type Wish struct {
	Segment
	Shared  bool      // another of the wishes is on the same bridge
	Machine MAC       // of the bridge, if it has to be made; zero: any
	Entries []Entry   // hosts at other sites; their Site is not 0
	Direct  *Underlay // in mode Direct, and only there
}

// Entry says behind which endpoint of the carrier a MAC is. In mode Direct, that
// is the endpoint of an UnderlaySite, to whose machine the kernel sends the frames
// (it drops them when there is none), or vxlan.Self: the gateway takes them itself.
type Entry struct {
	MAC   MAC
	Site  vxlan.Endpoint
	Moves bool // to Point: it was behind another endpoint, so that the bridge knows it already

	// In mode Direct:
	Left   bool // to Point: it was here; what still arrives for it goes on to where it is now, for MoveGrace
	Coming bool // a job is about to bring it here: what arrives for it from other sites is for the gateway
}

// Attached is what a Host made of a Wish.
type Attached struct {
	Device  string // the VXLAN device
	Adopted bool   // the bridge was there before us
	Bridge  MAC    // of the bridge itself: the machine is a host on the segment, too
	Err     error  // why the segment does not work
	Port    Port   // of a segment in mode secure-fast; nil for others

	// UDPSegments tells that the kernel takes UDP from the Port that is not cut
	// to packets yet, and gives it so.
	UDPSegments bool

	MTU       int    // of the bridge; 0 when it is not known
	Limited   uint64 // frames over a limit that the kernel has dropped, since the Host was made
	Delivered uint64 // packets from the carrier that reached the bridge since the device was made

	// In mode Direct, likewise what the kernel keeps from other sites, or theirs from here, as the
	// gateway does in other modes: see DropForbidden, DropPolicy, DropShut and DropNoListener.
	Forbidden, Kept, Shut, NoListener uint64

	OtherVLANs uint64 // frames that the kernel has dropped since the Host was made, as they are not of the segment's VLAN, nor for a host in another one of ours
}

// Sighting is a host that was seen on a LAN port.
type Sighting struct {
	VNI  uint32
	MAC  MAC
	Port string // "" when it is not known

	IP        netip.Addr // if valid, seen with the MAC
	Announced bool       // the host told so itself: it may have just come
	Router    bool       // it is an IPv6 router
	Leased    bool       // a DHCP server gave it the IP: it need not be here
	Somewhere bool       // it is on the bridge, in a VLAN that is not known: of use only if it is bound here already

	// In mode Direct, and then nothing else; the Manager may keep it:
	Probe  []byte // a loop probe (l2ext/probe)
	Report []byte // an IGMP or MLD message

	speaks bool // it was a frame of the host itself: it runs
}
