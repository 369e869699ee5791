package hostnet

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

// filtering is bridges that filter VLANs, which this kernel may not have: it keeps what it
// is told of ports, and gives each port that is plugged in the VLAN of the default as the
// kernel does. It knows ports by a flag that goes when they are unplugged.
type filtering struct {
	n *Net

	mu    sync.Mutex // guards what follows
	ports map[int]map[uint16]uint16
	fail  error
	lists int // how often it was asked
}

func newFiltering(n *Net) *filtering {
	return &filtering{n: n, ports: make(map[int]map[uint16]uint16)}
}

const ownVLAN = nl.BRIDGE_VLAN_INFO_PVID | nl.BRIDGE_VLAN_INFO_UNTAGGED // of a port of a guest

func (f *filtering) port(index int) map[uint16]uint16 {
	if f.ports[index] == nil {
		f.ports[index] = map[uint16]uint16{1: ownVLAN}
	}
	return f.ports[index]
}

func (f *filtering) filters(netlink.Link) bool { return true }

func (f *filtering) of() (map[int][]nl.BridgeVlanInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	links, err := f.n.nl.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == 0 {
			continue
		}
		p, err := f.n.nl.LinkGetProtinfo(l)
		if err != nil {
			return nil, err
		}
		if !p.FastLeave {
			delete(f.ports, l.Attrs().Index)
			if err := f.n.nl.LinkSetFastLeave(l, true); err != nil {
				return nil, err
			}
		}
		f.port(l.Attrs().Index)
	}
	all := make(map[int][]nl.BridgeVlanInfo)
	for index, vlans := range f.ports {
		for _, vid := range slices.Sorted(maps.Keys(vlans)) {
			all[index] = append(all[index], nl.BridgeVlanInfo{Vid: vid, Flags: vlans[vid]})
		}
	}
	return all, f.fail
}

func (f *filtering) add(port netlink.Link, vid uint16) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.port(port.Attrs().Index)[vid] = 0
	return nil
}

func (f *filtering) remove(port netlink.Link, vid uint16) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.port(port.Attrs().Index), vid)
	return nil
}

// state tells the VLANs of a device.
func (f *filtering) state(t *testing.T, n *Net, device string) (s string) {
	t.Helper()
	l, err := n.nl.LinkByName(device)
	check(t, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	vlans := f.ports[l.Attrs().Index]
	for _, vid := range slices.Sorted(maps.Keys(vlans)) {
		s += fmt.Sprintf(" %d", vid)
		if vlans[vid] != 0 {
			s += " untagged"
		}
	}
	return strings.TrimSpace(s)
}

// learns makes a port known to f, as plugging it in does.
func (f *filtering) learns(t *testing.T, n *Net, device string, vlans map[uint16]uint16) {
	t.Helper()
	l, err := n.nl.LinkByName(device)
	check(t, err, n.nl.LinkSetFastLeave(l, true))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[l.Attrs().Index] = vlans
}

func inVLANs(bridge string, vids ...uint16) (wishes []l2ext.Wish) {
	for i, vid := range vids {
		wishes = append(wishes, l2ext.Wish{Shared: len(vids) > 1, Segment: l2ext.Segment{
			Name: fmt.Sprint("s", i), VNI: uint32(100 + i), Bridge: bridge, VLAN: vid, MTU: 1500, Sites: []string{"b"}}})
	}
	return wishes
}

func applied(t *testing.T, n *Net, wishes ...l2ext.Wish) {
	t.Helper()
	answers, err := n.Apply(t.Context(), wishes)
	check(t, err)
	for _, a := range answers {
		check(t, a.Err)
	}
}

// TestFilteringBridge: on a bridge that filters VLANs our port is a member of the
// segment's, with tags, and of no other; the ports of guests tell which segments they
// are on, and which frames are whose.
func TestFilteringBridge(t *testing.T) {
	ns := machine(t)
	guest, err := ns.Tap("guest")
	check(t, err)
	defer guest.Close()
	trunk, err := ns.Tap("trunk")
	check(t, err, ns.Bridge("br0", "guest", "trunk"))
	defer trunk.Close()
	n := newNet(t, ns)
	f := newFiltering(n)
	n.vlans = f
	applied(t, n, inVLANs("br0", 100, 200)...)
	f.learns(t, n, "guest", map[uint16]uint16{100: ownVLAN})
	f.learns(t, n, "trunk", map[uint16]uint16{1: ownVLAN, 100: 0, 200: 0})
	if got := f.state(t, n, "lhvx100") + ", " + f.state(t, n, "lhvx101"); got != "100, 200" {
		t.Errorf("the ports' VLANs are %s", got)
	}
	for port, want := range map[string][]uint32{"guest": {100}, "trunk": {100, 101}, "lhvx100": {100}} {
		if got := n.PortSegments(port); !slices.Equal(got, want) {
			t.Errorf("port %s is on segments %d, want %d", port, got, want)
		}
	}
	tags := func(device string) map[uint16]uint32 {
		l, err := n.nl.LinkByName(device)
		check(t, err)
		all := make(map[uint16]uint32)
		on, _ := n.tagsAt(time.Now(), l.Attrs().Index, l.Attrs().MasterIndex)
		for tag, m := range on {
			all[tag] = m.vni
		}
		return all
	}
	if got, want := tags("guest"), (map[uint16]uint32{0: 100, 100: 100}); !maps.Equal(got, want) { // 200 would be a lie
		t.Errorf("frames of a guest are by their tags of %v, want %v", got, want)
	}
	if got, want := tags("trunk"), (map[uint16]uint32{100: 100, 200: 101}); !maps.Equal(got, want) {
		t.Errorf("frames of a trunk are by their tags of %v, want %v", got, want)
	}
	if got := tags("lhvx100"); len(got) > 0 {
		t.Errorf("frames of our own port are of %v", got)
	}
	f.learns(t, n, "lhvx100", map[uint16]uint16{1: ownVLAN, 100: ownVLAN, 7: 0}) // somebody has meddled
	applied(t, n, inVLANs("br0", 100, 201)...)
	if got := f.state(t, n, "lhvx100") + ", " + f.state(t, n, "lhvx101"); got != "100, 201" {
		t.Errorf("after another wish, the ports' VLANs are %s", got)
	}
	f.fail = errors.New("no memory")
	if a, err := n.Apply(t.Context(), inVLANs("br0", 100, 201)); err != nil || a[0].Err == nil {
		t.Errorf("VLANs that cannot be read: %v, %v", a[0].Err, err)
	}
}

// TestVLANChanges: a port whose segment gets another VLAN, or none, has left the one
// before, and no host is behind it that nobody wishes there; what it is otherwise, it is again.
func TestVLANChanges(t *testing.T) {
	for _, filters := range []bool{false, true} {
		ns := machine(t)
		check(t, ns.Bridge("br0"))
		n := newNet(t, ns)
		f := newFiltering(n)
		if filters {
			n.vlans = f
		}
		var before *netlink.Protinfo
		for i, step := range []struct {
			vid  uint16
			want string
		}{{100, "100"}, {100, "100"}, {0, "1 untagged"}, {200, "200"}, {300, "300"}} {
			w := inVLANs("br0", step.vid)[0]
			w.Mode = l2ext.Secure
			w.Entries = []l2ext.Entry{{MAC: l2ext.MAC{2, 0, 0, 0, 0, 1}, Site: 7}}
			applied(t, n, w)
			if filters {
				_, err := f.of()
				check(t, err)
				if got := f.state(t, n, "lhvx100"); got != step.want {
					t.Errorf("with VLAN %d its port's are %s", step.vid, got)
				}
			}
			l, err := n.nl.LinkByName("lhvx100")
			check(t, err)
			p, err := n.nl.LinkGetProtinfo(l)
			check(t, err)
			p.FastLeave = false // is f's
			if before != nil && *before != p || p.Learning || l.Attrs().RawFlags&unix.IFF_UP == 0 {
				t.Errorf("with VLAN %d, filtering %t, its port is %+v, flags %x; before: %+v", step.vid, filters, p, l.Attrs().RawFlags, before)
			}
			before = &p
			has, err := n.nl.NeighList(l.Attrs().Index, unix.AF_BRIDGE)
			check(t, err)
			stale := func(e netlink.Neigh) bool {
				return e.HardwareAddr.String() == "02:00:00:00:00:99" && e.MasterIndex != 0
			}
			if known := i == 1; slices.ContainsFunc(has, stale) != known { // nobody takes it away but with the port
				t.Errorf("with VLAN %d, filtering %t, the bridge has %v", step.vid, filters, has)
			}
			wished := func(e netlink.Neigh) bool {
				return e.HardwareAddr.String() == "02:00:00:00:00:01" && e.MasterIndex != 0
			}
			if !slices.ContainsFunc(has, wished) {
				t.Errorf("with VLAN %d, filtering %t, the bridge has not what is wished, but %v", step.vid, filters, has)
			}
			check(t, n.nl.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
				State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0x99}}))
		}
	}
}

// TestVLANLists: the kernel is asked for the VLANs of all ports once in an Apply, and once
// for all ports of which the snooper wants to know; after an error what was known
// before holds, and it is asked again soon.
func TestVLANLists(t *testing.T) {
	ns := machine(t)
	check(t, ns.Bridge("br0"))
	var ports []int
	n := newNet(t, ns)
	f := newFiltering(n)
	n.vlans = f
	for _, name := range []string{"tap0", "tap1", "tap2"} {
		tap, err := ns.Tap(name)
		check(t, err, ns.Plug(name, "br0"))
		defer tap.Close()
		f.learns(t, n, name, map[uint16]uint16{100: ownVLAN})
		l, err := n.nl.LinkByName(name)
		check(t, err)
		ports = append(ports, l.Attrs().Index)
	}
	wishes := inVLANs("br0", 100, 200, 300, 0)
	applied(t, n, wishes...)
	asked := func(what string, want int, do func()) {
		t.Helper()
		before := f.lists
		do()
		if got := f.lists - before; got != want {
			t.Errorf("%s: the kernel was asked %d times, want %d", what, got, want)
		}
	}
	asked("an Apply that changes nothing", 1, func() { applied(t, n, wishes...) })
	now := time.Now().Add(portFor) // what Apply was told is too old
	s := snooper{n: n, ports: make(map[int]portAt)}
	hears := func() {
		for _, port := range ports {
			if on := s.port(now, port).on; on[0].vni != 100 || on[100].vni != 100 || len(on) != 2 {
				t.Errorf("frames of a guest of VLAN 100 are by their tags of %v", on)
			}
		}
	}
	asked("three ports", 1, hears)
	asked("the same ports again", 0, hears)
	late, err := ns.Tap("late")
	check(t, err, ns.Plug("late", "br0"))
	defer late.Close()
	f.learns(t, n, "late", map[uint16]uint16{100: ownVLAN})
	l, err := n.nl.LinkByName("late")
	check(t, err)
	ports = append(ports, l.Attrs().Index)
	asked("one more, which has just come", 1, hears)
	now, f.fail = now.Add(portFor), errors.New("interrupted")
	asked("all ports, in vain", 1, hears)
	now = now.Add(vlansAgain)
	asked("soon after, in vain again", 1, hears)
	now, f.fail = now.Add(vlansAgain), nil
	asked("soon after", 1, hears)
	f.learns(t, n, "tap0", map[uint16]uint16{200: ownVLAN})
	if got := n.PortSegments("tap0"); !slices.Equal(got, []uint32{101}) {
		t.Errorf("a port whose VLAN has just changed is on %d", got)
	}
	f.fail = errors.New("interrupted")
	if got := n.PortSegments("tap0"); !slices.Equal(got, []uint32{101}) {
		t.Errorf("with the kernel telling nothing, it is on %d", got)
	}
	if a, err := n.Apply(t.Context(), wishes); err != nil || a[0].Err == nil {
		t.Errorf("VLANs that cannot be read: %v, %v", a[0].Err, err)
	}
}

// TestFilteringUntagged: a segment without tags keeps what the bridge has given its
// port, and on a bridge that it shares it is what that is.
func TestFilteringUntagged(t *testing.T) {
	ns := machine(t)
	check(t, ns.Bridge("br0"))
	n := newNet(t, ns)
	f := newFiltering(n)
	n.vlans = f
	applied(t, n, inVLANs("br0", 0)...)
	f.learns(t, n, "lhvx100", map[uint16]uint16{5: ownVLAN})
	applied(t, n, inVLANs("br0", 0, 100)...)
	if got := f.state(t, n, "lhvx100"); got != "5 untagged" {
		t.Errorf("its port's VLANs are %s", got)
	}
	a, _ := n.attachment(100)
	if a.lan.inside() != 5 {
		t.Errorf("its VLAN is %d on the bridge, want 5", a.lan.inside())
	}
	if got := a.lan.tags([]nl.BridgeVlanInfo{{Vid: 5, Flags: ownVLAN}}); !slices.Equal(got, []uint16{5, 0}) {
		t.Errorf("where guests have it, its frames have tags %d", got)
	}
	if got := (lan{shared: true, filters: true}).tags(nil); len(got) > 0 {
		t.Errorf("what is in no VLAN has tags %d", got)
	}
}

// TestSharedPorts: our ports of one bridge are isolated from each other, as long as there
// are several.
func TestSharedPorts(t *testing.T) {
	ns := machine(t)
	check(t, ns.Bridge("br0"))
	n := newNet(t, ns)
	for _, step := range []struct {
		vids     []uint16
		isolated bool
	}{{[]uint16{0}, false}, {[]uint16{0, 100}, true}, {[]uint16{100}, false}} {
		applied(t, n, inVLANs("br0", step.vids...)...)
		l, err := n.nl.LinkByName("lhvx100")
		check(t, err)
		p, err := n.nl.LinkGetProtinfo(l)
		check(t, err)
		if p.Isolated != step.isolated {
			t.Errorf("with VLANs %d: isolated is %t", step.vids, p.Isolated)
		}
	}
}
