package l2exttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// maxWaiting bounds the frames that wait in a queue of a Host; what does not
// fit is lost, as in a kernel, but of a LAN port the oldest.
const maxWaiting = 1024

// Host is a machine's network in memory: bridges with LAN ports, and a carrier.
type Host struct {
	carrier chan []byte // maxWaiting; packets to the gateway
	closing chan struct{}

	mu       sync.Mutex // guards what follows
	bridges  map[string]*bridge
	segments map[uint32]*overlay
	watch    func(l2ext.Sighting)
	refuse   error                            // what Point and Apply answer
	captures map[uint32][]chan l2ext.Captured // by VNI; each has room for maxWaiting
	firewall bool                             // drops what comes from the carrier
	closed   bool
}

type bridge struct {
	ours    bool
	mac     l2ext.MAC
	learned map[l2ext.MAC]string // on which LAN port
	ports   map[string]chan []byte
	muted   map[string]bool // ports that get no broadcast
	heard   map[l2ext.MAC]time.Time
}

type overlay struct {
	wish    l2ext.Wish
	entries map[l2ext.MAC]vxlan.Endpoint

	delivered uint64 // packets from the carrier
	port      *port  // in mode secure-fast; nil in others
}

var _ l2ext.Host = (*Host)(nil)

// NewHost makes a machine without bridges.
func NewHost() *Host {
	return &Host{
		carrier:  make(chan []byte, maxWaiting),
		closing:  make(chan struct{}),
		bridges:  make(map[string]*bridge),
		segments: make(map[uint32]*overlay),
		captures: make(map[uint32][]chan l2ext.Captured),
	}
}

// AddBridge makes a bridge that is not l2ext's.
func (h *Host) AddBridge(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addBridge(name, false)
}

func (h *Host) addBridge(name string, ours bool) *bridge {
	b := &bridge{ours: ours, learned: make(map[l2ext.MAC]string), ports: make(map[string]chan []byte), muted: make(map[string]bool), heard: make(map[l2ext.MAC]time.Time)}
	rand.Read(b.mac[:]) // never fails
	b.mac[0] = 0x0a     // two sites with one MAC would claim it in turn
	h.bridges[name] = b
	return b
}

// Plug adds a LAN port to a bridge.
func (h *Host) Plug(bridge, port string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bridges[bridge].ports[port] = make(chan []byte, maxWaiting)
}

// Unplug removes a LAN port, and what was learned on it.
func (h *Host) Unplug(bridge, port string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.bridges[bridge]
	delete(b.ports, port)
	maps.DeleteFunc(b.learned, func(_ l2ext.MAC, p string) bool { return p == port })
}

// Refuse makes Apply and Point fail from now on; nil ends that.
func (h *Host) Refuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = err
}

// Firewall makes the machine drop what comes from the carrier.
func (h *Host) Firewall() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.firewall = true
}

// String tells the state, one thing on a line: bridges, overlay ports, entries.
func (h *Host) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for name, b := range h.bridges {
		by := "adopted"
		if b.ours {
			by = "made"
		}
		lines = append(lines, fmt.Sprintf("bridge %s %s", name, by))
		for port := range b.muted {
			lines = append(lines, fmt.Sprintf("muted %s", port))
		}
	}
	for vni, o := range h.segments {
		lines = append(lines, fmt.Sprintf("port lhvx%d on %s mtu %d", vni, o.wish.Bridge, o.wish.MTU))
		if d := o.wish.Direct; d != nil {
			lines = append(lines, fmt.Sprintf("port lhdx%d on %s mtu %d from %v", vni, o.wish.Bridge, o.wish.MTU, d.Local))
			lines = append(lines, directLines(d)...)
		}
		for mac, site := range o.entries {
			lines = append(lines, fmt.Sprintf("fdb lhvx%d %v site %d", vni, mac, site))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Apply makes the wished segments.
func (h *Host) Apply(_ context.Context, wishes []l2ext.Wish) ([]l2ext.Attached, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return nil, h.refuse
	}
	if h.closed {
		return nil, os.ErrClosed
	}
	keep, kept := make(map[string]bool), make(map[uint32]bool)
	for _, w := range wishes {
		keep[w.Bridge], kept[w.VNI] = true, true
	}
	maps.DeleteFunc(h.segments, func(vni uint32, o *overlay) bool {
		if !kept[vni] && o.port != nil {
			o.port.close()
		}
		return !kept[vni]
	})
	maps.DeleteFunc(h.bridges, func(name string, b *bridge) bool { return b.ours && !keep[name] && len(b.ports) == 0 })
	answers := make([]l2ext.Attached, len(wishes))
	for i, w := range wishes {
		b := h.bridges[w.Bridge]
		if b == nil {
			b = h.addBridge(w.Bridge, true)
			if w.Machine != (l2ext.MAC{}) {
				b.mac = w.Machine
			}
		}
		o := &overlay{wish: w, entries: make(map[l2ext.MAC]vxlan.Endpoint)}
		if old := h.segments[w.VNI]; old != nil {
			o.delivered, o.port = old.delivered, old.port
		}
		o.needPort(h)
		for _, e := range w.Entries {
			o.entries[e.MAC] = e.Site
		}
		h.segments[w.VNI] = o
		device := fmt.Sprintf("lhvx%d", w.VNI)
		if w.Direct != nil {
			device = fmt.Sprintf("lhdx%d", w.VNI)
		}
		answers[i] = l2ext.Attached{Device: device, Adopted: !b.ours, Bridge: b.mac, Delivered: o.delivered}
		if o.port != nil {
			answers[i].Port, answers[i].UDPSegments = o.port, true
		}
	}
	return answers, nil
}

// needPort makes or closes the port that the mode needs, or does not.
func (o *overlay) needPort(h *Host) {
	wanted := o.wish.Mode == l2ext.SecureFast
	if o.port != nil && !wanted {
		o.port.close()
		o.port = nil
	}
	if o.port == nil && wanted {
		o.port = newPort(h, o.wish.VNI)
	}
}

// Point adds or removes entries of one segment.
func (h *Host) Point(vni uint32, entries []l2ext.Entry) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.segments[vni]
	if h.refuse != nil {
		return h.refuse
	}
	if o == nil {
		return fmt.Errorf("no segment with VNI %d", vni)
	}
	for _, e := range entries {
		if e.Site == 0 {
			delete(o.entries, e.MAC)
			continue
		}
		o.entries[e.MAC] = e.Site
		delete(h.bridges[o.wish.Bridge].learned, e.MAC)
	}
	return nil
}

// Watch reports hosts on LAN ports.
func (h *Host) Watch(ctx context.Context, report func(l2ext.Sighting)) error {
	h.mu.Lock()
	h.watch = report
	var known []l2ext.Sighting
	for vni, o := range h.segments {
		for mac, port := range h.bridges[o.wish.Bridge].learned {
			known = append(known, l2ext.Sighting{VNI: vni, MAC: mac, Port: port, Somewhere: !o.alone()})
		}
	}
	h.mu.Unlock()
	for _, s := range known {
		report(s)
	}
	<-ctx.Done()
	h.mu.Lock()
	h.watch = nil
	h.mu.Unlock()
	return nil
}

// PortSegments tells on which segments a LAN port may be.
func (h *Host) PortSegments(port string) (vnis []uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for vni, o := range h.segments {
		if h.bridges[o.wish.Bridge].ports[port] != nil {
			vnis = append(vnis, vni)
		}
	}
	slices.Sort(vnis)
	return vnis
}

// Heard tells when a host sent its last frame.
func (h *Host) Heard(vni uint32, mac l2ext.MAC) (time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.segments[vni]
	if o == nil || o.entries[mac] != 0 {
		return 0, false
	}
	at, ok := h.bridges[o.wish.Bridge].heard[mac]
	return time.Since(at), ok
}

// Mute keeps broadcast and multicast from a port.
func (h *Host) Mute(port string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		if b.ports[port] != nil {
			b.muted[port] = true
			return nil
		}
	}
	return fmt.Errorf("no port %s", port)
}

// Unmute ends that.
func (h *Host) Unmute(port string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		delete(b.muted, port)
	}
	return nil
}

// Send has a host behind a LAN port send a frame.
func (h *Host) Send(port string, frame []byte) error {
	head, err := ether.Parse(frame)
	if err != nil {
		return err
	}
	h.mu.Lock()
	var fresh []l2ext.Sighting
	for name, b := range h.bridges {
		if b.ports[port] == nil {
			continue
		}
		for _, o := range h.overlaysOf(name) {
			if o.entries[head.Src] == 0 && b.learned[head.Src] != port {
				fresh = append(fresh, l2ext.Sighting{VNI: o.wish.VNI, MAC: head.Src, Port: port, Somewhere: !o.alone()})
			}
			fresh = append(fresh, o.snoop(port, frame)...)
		}
		h.forward(name, way{port: port}, head, frame)
	}
	report := h.watch
	h.mu.Unlock()
	for _, s := range fresh {
		if report != nil {
			report(s)
		}
	}
	return nil
}

func offer(c chan []byte, b []byte) {
	select {
	case c <- slices.Clone(b):
	default:
	}
}

// show gives a frame to a LAN port, at which a test looks now and then. It finds the
// newest there: gateways send probes all the time.
func show(c chan []byte, b []byte) {
	for cap(c) > 0 && len(c) == cap(c) { // there may be no such port
		select {
		case <-c:
		default: // somebody has just received
		}
	}
	offer(c, b)
}

// Receive takes the next frame that the bridge gives to a LAN port, or nil when
// there is none.
func (h *Host) Receive(port string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.bridges {
		if c := b.ports[port]; c != nil {
			select {
			case f := <-c:
				return f
			default:
			}
		}
	}
	return nil
}

// ReadPacket reads one packet that a bridge sends to the carrier.
func (h *Host) ReadPacket(b []byte) (int, error) {
	select {
	case p := <-h.carrier:
		return copy(b, p), nil
	case <-h.closing:
		return 0, os.ErrClosed
	}
}

// WritePacket gives a packet to the bridge of its segment.
func (h *Host) WritePacket(b []byte) error {
	p, _, err := vxlan.Parse(b)
	if err != nil {
		return err
	}
	head, err := ether.Parse(p.Frame)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.segments[p.VNI]
	if o == nil || h.closed {
		return errors.New("no such segment")
	}
	if h.firewall {
		return nil
	}
	o.delivered++
	h.forward(o.wish.Bridge, way{overlay: true}, head, p.Frame)
	return nil
}

// Close ends the carrier.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		for _, o := range h.segments {
			if o.port != nil {
				o.port.close()
			}
		}
		clear(h.segments)
		for _, b := range h.bridges {
			clear(b.muted)
		}
		close(h.closing)
	}
	return nil
}
