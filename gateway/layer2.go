package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/tunnel"
)

// DatagramL2 is the kind of the link's datagrams that carry frames of
// segments. Other kinds belong to whoever wires the gateway.
const DatagramL2 byte = 1

// ProtoL2 is that of raw connections with frames, see l2ext/stream. It is numbered
// with those of whoever wires the gateway.
const ProtoL2 byte = 3

// flipTime bounds what the network may take at the switchover, while the VM
// stands still. A flip takes a millisecond; the RARP of the destination does
// the rest should it fail.
const flipTime = 500 * time.Millisecond

// carrier takes frames and announcements of l2ext to other sites: frames as
// datagrams or by raw connections beside these, announcements over one urgent
// channel to each site.
type carrier struct {
	node *tunnel.Node

	mu       sync.Mutex // guards what follows
	channels map[string]*tunnel.Channel
}

func (c *carrier) SendFrame(site string, b []byte) error {
	link := c.node.Link(site)
	if link == nil {
		return fmt.Errorf("site %s: %w", site, ErrNoSite)
	}
	return link.SendDatagram(DatagramL2, b)
}

func (c *carrier) MaxDatagram(site string) int {
	link := c.node.Link(site)
	if link == nil {
		return 0
	}
	return link.MaxDatagram()
}

// SendUrgent opens the channel to a site when there is none. A channel fails
// when the peer restarts; l2ext then sends everything anew.
func (c *carrier) SendUrgent(ctx context.Context, site string, b []byte) error {
	ch, err := c.channel(ctx, site)
	if err != nil {
		return err
	}
	if _, err := ch.Send(ctx, b); err != nil {
		c.drop(site, ch)
		return fmt.Errorf("announcing to %s: %w", site, err)
	}
	return nil
}

func (c *carrier) channel(ctx context.Context, site string) (*tunnel.Channel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.channels[site]; ch != nil && ch.Err() == nil {
		return ch, nil
	}
	link := c.node.Link(site)
	if link == nil {
		return nil, fmt.Errorf("site %s: %w", site, ErrNoSite)
	}
	ch, err := link.Open(ctx, tunnel.Spec{Kind: kindL2, Class: tunnel.Urgent})
	if err != nil {
		return nil, fmt.Errorf("opening a channel to %s: %w", site, err)
	}
	c.channels[site] = ch
	return ch, nil
}

func (c *carrier) drop(site string, ch *tunnel.Channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.channels[site] == ch {
		delete(c.channels, site)
	}
	ch.Abort("announcement failed")
}

// Layer2 stretches this site's segments over the links of a node, and does
// what moves ask of them.
type Layer2 struct {
	site string
	node *tunnel.Node
	m    *l2ext.Manager
	log  *slog.Logger // limited, as others cause what is told

	orders *slog.Logger // without limits: what moves meet, of which each line tells of another one

	mu       sync.Mutex // guards what follows
	wished   []l2ext.Segment
	policies map[string]SegmentPolicy // by segment, as they were given
	hooks    map[string][]string      // host_route by segment; they outlive it, for the routes that then have to go

	// Constant after NewLayer2.
	routes     string // file of the host routes that there are; "" for none
	lostRoutes string // why those of an earlier gateway are not all known; "" if they are
}

// Layer2Config is what a Layer2 needs. Site, Node and Host are required.
type Layer2Config struct {
	Site string
	Node *tunnel.Node
	Host l2ext.Host
	// Underlay is this machine's address for segments in mode direct; invalid
	// for none.
	Underlay netip.Addr
	// StateDir is the directory in which it is kept which host routes there are, so
	// that those of a gateway that has died do not stay. "": it is not.
	StateDir string
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// NewLayer2 makes the segments' end at this site. Run serves.
func NewLayer2(cfg Layer2Config) (*Layer2, error) {
	log := l2ext.LimitLog(cfg.Logger)
	l := &Layer2{
		site: cfg.Site, node: cfg.Node, log: log, orders: cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		policies: make(map[string]SegmentPolicy), hooks: make(map[string][]string),
	}
	left := l.leftRoutes(cfg.StateDir)
	c := &carrier{node: cfg.Node, channels: map[string]*tunnel.Channel{}}
	m, err := l2ext.New(l2ext.Config{
		Site: cfg.Site, Host: cfg.Host, Underlay: cfg.Underlay, Logger: log,
		Route: l.route, KeepRoutes: l.keepRoutes, LeftRoutes: left,
		Carrier: c, Streams: c, Express: express{cfg.Node}, RTT: l.trip,
	})
	if err != nil {
		return nil, err
	}
	l.m = m
	return l, nil
}

// Run serves until ctx ends.
func (l *Layer2) Run(ctx context.Context) error { return l.m.Run(ctx) }

// HandleDatagram takes a datagram of kind DatagramL2.
func (l *Layer2) HandleDatagram(site string, b []byte) {
	if err := l.m.HandleDatagram(site, b); err != nil {
		l.log.Debug("frame from a peer", "peer", site, "err", err)
	}
}

// HandleExpress takes datagrams that came beside QUIC, and returns the site that
// has sealed one of them; see l2ext.Manager.
func (l *Layer2) HandleExpress(b []byte, size int) (site string) { return l.m.HandleExpress(b, size) }

// LinkChanged tells that the link to a site came up or went down.
func (l *Layer2) LinkChanged(site string, up bool) {
	if up {
		l.m.PeerUp(site)
	} else {
		l.m.PeerDown(site)
	}
}

// Serve takes the announcements of one peer.
func (l *Layer2) Serve(ctx context.Context, ch *tunnel.Channel) {
	for {
		msg, err := ch.Recv(ctx)
		if err != nil {
			ch.Abort("no more announcements") // the peer has restarted, or we stop; it opens another
			return
		}
		if err := l.m.HandleUrgent(ch.Site(), msg.Data); err != nil {
			l.log.Warn("announcement of a peer", "peer", ch.Site(), "err", err)
		}
		ch.Done(msg.Seq)
	}
}

// do calls a step of a job within flipTime.
func (l *Layer2) do(what string, job string, step func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), flipTime)
	defer cancel()
	if err := step(ctx); err != nil {
		l.orders.Warn("network of a move", "stage", what, "job", job, "err", err)
	}
}

// Prepare says that a job will move these NICs to a site.
func (l *Layer2) Prepare(job string, nics []NIC, to string) {
	l.do("prepare", job, func(ctx context.Context) error { return l.m.Prepare(ctx, job, l.nics(nics), to) })
}

// Flip sends their traffic there; the VM has stopped here.
func (l *Layer2) Flip(job string) {
	l.do("flip", job, func(ctx context.Context) error { return l.m.Flip(ctx, job) })
}

// Expect says behind which ports a job's VM will come to run.
func (l *Layer2) Expect(job string, nics []NIC) {
	l.do("expect", job, func(ctx context.Context) error { return l.m.Expect(ctx, job, l.nics(nics)) })
}

// Settle announces them here; the VM runs.
func (l *Layer2) Settle(job string, nics []NIC) {
	l.do("settle", job, func(ctx context.Context) error { return l.m.Settle(ctx, job, l.nics(nics)) })
}

// Confirm makes the flip final; both sites call it.
func (l *Layer2) Confirm(job string) {
	l.do("confirm", job, func(ctx context.Context) error { return l.m.Confirm(ctx, job) })
}

// Revoke takes the flip back: the VM stays at its source.
func (l *Layer2) Revoke(job string) {
	l.do("revoke", job, func(ctx context.Context) error { return l.m.Revoke(ctx, job) })
}

// silenceTime is how long the end of a move waits for the VM's first frame at
// the destination: the kernel of an idle guest says something within seconds,
// and QEMU has it announce itself at once if it can.
const silenceTime = 500 * time.Millisecond

// Silence tells how long the VM's peers heard nothing of it: up to the flip by
// this site's clock, half a round trip, and from there by the destination's; see l2ext.Gap.
func (l *Layer2) Silence(job, peer string) *Silence {
	ctx, cancel := context.WithTimeout(context.Background(), silenceTime)
	defer cancel()
	g, err := l.m.Gap(ctx, job)
	if err != nil {
		return nil
	}
	s := &Silence{Gap: -1, Held: g.Held, Lost: g.Lost}
	if link := l.node.Link(peer); link != nil && g.Before >= 0 && g.After >= 0 {
		s.Gap = g.Silence(link.State().RTT).Milliseconds()
	}
	return s
}

// ClearMAC forgets, at all sites, that a MAC was claimed by two sites in turn. ErrUnavailable: one at which
// it is frozen cannot be told.
func (l *Layer2) ClearMAC(ctx context.Context, segment, mac string) error {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != len(l2ext.MAC{}) {
		return fmt.Errorf("MAC %q: want it like 52:54:00:00:00:01: %w", mac, ErrInvalid)
	}
	err = l.m.Clear(ctx, segment, l2ext.MAC(m))
	if errors.Is(err, l2ext.ErrNoMAC) || errors.Is(err, l2ext.ErrNoSegment) {
		return fmt.Errorf("%v: %w", err, ErrNotFound)
	}
	if errors.Is(err, l2ext.ErrUntold) {
		return fmt.Errorf("%w: %w", err, ErrUnavailable)
	}
	return err
}

func (l *Layer2) nics(nics []NIC) []l2ext.NIC {
	var all []l2ext.NIC
	for _, n := range nics {
		mac, err := net.ParseMAC(n.MAC)
		if err != nil || len(mac) != len(l2ext.MAC{}) {
			l.orders.Warn("NIC of a VM has no Ethernet address", "mac", n.MAC, "err", err)
			continue
		}
		all = append(all, l2ext.NIC{MAC: l2ext.MAC(mac), Tap: n.Tap})
	}
	return all
}

// Segments lists the segments by name.
func (l *Layer2) Segments(context.Context) ([]Segment, error) {
	all := []Segment{}
	for _, v := range l.m.Segments() {
		all = append(all, l.segmentView(v))
	}
	return all, nil
}

// Segment returns one.
func (l *Layer2) Segment(ctx context.Context, name string) (Segment, error) {
	all, _ := l.Segments(ctx)
	i := slices.IndexFunc(all, func(s Segment) bool { return s.Name == name })
	if i < 0 {
		return Segment{}, fmt.Errorf("segment %q: %w", name, ErrNotFound)
	}
	return all[i], nil
}

// AddSegment stretches one more segment.
func (l *Layer2) AddSegment(ctx context.Context, s Segment) (Segment, error) {
	if err := l.addSegment(ctx, s); err != nil {
		return s, err
	}
	return l.Segment(ctx, s.Name)
}

// StretchSegment is AddSegment for who waits for the answer: a device that is no bridge is refused,
// with ErrInvalid. A segment of the config waits for it to become one, with a problem.
func (l *Layer2) StretchSegment(ctx context.Context, s Segment) (Segment, error) {
	added, err := l.AddSegment(ctx, s)
	if err != nil {
		return added, err
	}
	for _, v := range l.m.Segments() {
		if v.Name == s.Name && errors.Is(v.Err, l2ext.ErrNoBridge) {
			return s, errors.Join(fmt.Errorf("segment %s: %w: %w", s.Name, v.Err, ErrInvalid), l.RemoveSegment(ctx, s.Name))
		}
	}
	return added, nil
}

// SetSites changes the other sites of a segment, without a gap for those that
// stay.
func (l *Layer2) SetSites(ctx context.Context, name string, sites []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := slices.Clone(l.wished)
	i := slices.IndexFunc(next, func(w l2ext.Segment) bool { return w.Name == name })
	if i < 0 {
		return fmt.Errorf("segment %q: %w", name, ErrNotFound)
	}
	next[i].Sites = slices.Clone(sites)
	if err := l.m.Apply(ctx, next); err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	l.wished = next
	return nil
}

// RemoveSegment ends a segment at this site. The other sites are told that none of
// its hosts can be reached: they would answer for them for as long as they know them.
func (l *Layer2) RemoveSegment(ctx context.Context, name string) error {
	if _, err := l.Segment(ctx, name); err != nil {
		return err
	}
	if err := l.m.Leave(ctx, name); err != nil {
		return fmt.Errorf("removing segment %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(l.wished), func(w l2ext.Segment) bool { return w.Name == name })
	if len(next) == len(l.wished) {
		return fmt.Errorf("segment %q: %w", name, ErrNotFound) // somebody else was faster
	}
	if err := l.m.Apply(ctx, next); err != nil {
		return fmt.Errorf("removing segment %s: %w", name, err)
	}
	l.wished = next
	delete(l.policies, name)
	return nil
}

func (l *Layer2) segmentView(v l2ext.View) Segment {
	s := Segment{
		Name: v.Name, VNI: v.VNI, Bridge: v.Bridge, VLAN: v.VLAN, MTU: v.MTU, Sites: v.Sites, Mode: string(v.Mode),
		Adopted: v.Adopted, Device: v.Device, Problem: v.Problem, Bindings: []Binding{},
	}
	sent, received, dropped := v.Frames()
	s.Sent, s.Received, s.Dropped = int64(sent), int64(received), int64(dropped)
	l.mu.Lock()
	s.Policy = l.policies[v.Name]
	l.mu.Unlock()
	s.Counts = make(map[string]int64, len(v.Counts))
	for c, n := range v.Counts {
		s.Counts[c.String()] = int64(n)
	}
	s.Ways = ways(v)
	s.Problem = cmp.Or(s.Problem, l.strangers(s.Sites), l.homeless(s))
	if len(s.Policy.HostRoute) > 0 {
		s.Problem = cmp.Or(s.Problem, l.lostRoutes)
	}
	for _, b := range v.Bindings {
		g := Binding{MAC: b.MAC.String(), Site: b.Site, Seq: b.Seq, State: string(b.State), Job: b.Job, FrozenAt: b.FrozenAt}
		g.IPs = texts(b.IPs)
		l.addWay(&g, v)
		s.Bindings = append(s.Bindings, g)
	}
	for _, v := range v.Streams {
		s.Streams = append(s.Streams, SegmentStream{Site: v.Site, On: v.On, Why: v.Why, Loss: v.Loss})
	}
	return s
}

// strangers tells which of a segment's sites are not known here. They may join
// later; until then nothing of the segment gets there.
func (l *Layer2) strangers(sites []string) string {
	unknown := slices.DeleteFunc(slices.Clone(sites), func(site string) bool { return l.node.Link(site) != nil })
	if len(unknown) == 0 {
		return ""
	}
	return "no such site yet: " + strings.Join(unknown, ", ")
}

// homeless tells of a home at which the segment is not: all that goes by the home, such as
// routes to hosts and what unstretch lists, is wrong then.
func (l *Layer2) homeless(s Segment) string {
	home := s.Policy.Home
	if home == "" || home == l.site || slices.Contains(s.Sites, home) {
		return ""
	}
	return "its home, site " + home + ", is not on the segment"
}

// ways shows the underlay of a segment in mode direct, and where a site carries
// a segment in another mode.
func ways(v l2ext.View) (all []SegmentWay) {
	for _, w := range v.Ways {
		if v.Mode != l2ext.Direct && w.Problem == "" {
			continue
		}
		s := SegmentWay{Site: w.Site, Mode: string(w.Mode), Up: w.Up, Problem: w.Problem}
		if w.Addr.IsValid() {
			s.Address = w.Addr.String()
		}
		if w.Up {
			s.RTT = float64(w.RTT.Microseconds()) / 1000
		}
		all = append(all, s)
	}
	return all
}
