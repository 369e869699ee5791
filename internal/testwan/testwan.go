// Package testwan is a WAN in memory for tests: packet sockets with addresses,
// and lines between sites that delay, limit, lose, reorder, duplicate and cut.
// It takes time from the time package, so that in a testing/synctest bubble
// minutes pass for free.
//
// Two sockets whose IP addresses are equal are at one site and reach each other
// at once; all others have a line between their IPs, one for each direction.
package testwan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Line is what one direction between two sites is like. The zero value is a
// perfect line.
type Line struct {
	Delay     time.Duration // one way
	Rate      int64         // bytes per second of UDP payload plus 42 for headers; 0 for no limit
	Queue     int           // bytes that wait for Rate before packets are dropped; 0 means 100 ms of Rate
	Loss      float64       // part of packets lost
	Reorder   float64       // part of packets that come Jitter late
	Jitter    time.Duration
	Duplicate float64 // part of packets that come twice
	MTU       int     // longest UDP payload that passes; 0 for no limit
}

// Stats counts packets.
type Stats struct {
	Sent, Delivered      int
	Lost, Full, Cut, Big int // dropped by Loss, by a full queue, by Cut or Block, by MTU
	Bytes                int64
}

// overhead is of each packet on the wire: UDP, IPv4 and Ethernet.
const overhead = 42

// rcvQueue is the packets that a socket holds for its reader: about the 7 MiB
// that quic-go asks the kernel for.
const rcvQueue = 4096

// WAN is all sockets and lines of a test. Close it.
type WAN struct {
	mu                   sync.Mutex // guards what follows
	rng                  *rand.Rand
	line                 Line
	special              map[[2]netip.Addr]Line // lines that are not like the others
	ways                 map[[2]netip.Addr]*way
	sockets              map[netip.AddrPort]*Socket
	cut                  bool
	noPackets, noStreams bool
	listeners            map[netip.AddrPort]*listener
	blocked              map[netip.AddrPort]bool
	next                 uint16
	nat                  map[netip.AddrPort]netip.AddrPort // what others see of a socket, and back
	lose                 func(from, to netip.AddrPort, n int) bool
	stats                Stats
	pumps                sync.WaitGroup
	closed               chan struct{}
}

// New makes a WAN whose lines are all like line. The seed decides losses.
func New(line Line, seed uint64) *WAN {
	return &WAN{
		rng:       rand.New(rand.NewPCG(seed, 0)),
		line:      line,
		special:   make(map[[2]netip.Addr]Line),
		ways:      make(map[[2]netip.Addr]*way),
		sockets:   make(map[netip.AddrPort]*Socket),
		listeners: make(map[netip.AddrPort]*listener),
		blocked:   make(map[netip.AddrPort]bool),
		nat:       make(map[netip.AddrPort]netip.AddrPort),
		next:      40000,
		closed:    make(chan struct{}),
	}
}

// Close ends the lines and waits for them. Sockets that are open read ErrClosed.
func (w *WAN) Close() {
	w.mu.Lock()
	close(w.closed)
	for _, s := range w.sockets {
		s.shut()
	}
	w.mu.Unlock()
	w.pumps.Wait()
}

// Set changes all lines at once. Packets under way keep their time.
func (w *WAN) Set(line Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = line
}

// SetBetween makes the lines between two addresses, both ways, other than the
// rest. With Loss 1 they are cut.
func (w *WAN) SetBetween(a, b netip.Addr, line Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.special[[2]netip.Addr{a, b}] = line
	w.special[[2]netip.Addr{b, a}] = line
}

// Cut loses every packet that is sent from now on, until Heal.
func (w *WAN) Cut() { w.setCut(true) }

// Heal ends a Cut and all Blocks.
func (w *WAN) Heal() {
	w.setCut(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.blocked)
}

func (w *WAN) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

// Lose loses each packet of n bytes that f tells to, beside those that the line
// loses. f is called in the order in which packets are sent, and must not use the
// WAN. Nil ends it.
func (w *WAN) Lose(f func(from, to netip.AddrPort, n int) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = f
}

// Block loses every packet from and to the socket with this address.
func (w *WAN) Block(a netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocked[a] = true
}

// Dialed lists the addresses of the open sockets at ip that were made by Dial.
func (w *WAN) Dialed(ip netip.Addr) (as []netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, s := range w.sockets {
		if a.Addr() == ip && s.dialed {
			as = append(as, a)
		}
	}
	return as
}

// Rebind makes all sockets at ip that were made by Dial and are open appear under
// other ports of the address outside, as when a NAT has forgotten them or a site
// has got another address. What is sent to where they were is lost.
func (w *WAN) Rebind(ip, outside netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, s := range w.sockets {
		if a.Addr() != ip || !s.dialed {
			continue
		}
		delete(w.nat, w.nat[a])
		w.next++
		to := netip.AddrPortFrom(outside, w.next)
		w.nat[a], w.nat[to] = to, a
	}
}

// Stats of all lines so far.
func (w *WAN) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// A Site makes sockets with its IP address; it is a tunnel.Sockets.
type Site struct {
	wan *WAN
	IP  netip.Addr
}

// Site gives the site with an IP address.
func (w *WAN) Site(ip string) Site { return Site{w, netip.MustParseAddr(ip)} }

// Listen opens a socket on a port, ":7447".
func (s Site) Listen(addr string) (net.PacketConn, error) {
	a, err := s.at(addr)
	if err != nil {
		return nil, err
	}
	return s.wan.open(a, false)
}

// at is the port of an address, ":7447", at this site.
func (s Site) at(addr string) (netip.AddrPort, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(s.IP.String() + ":" + port)
}

// Dial opens a socket on a port of its own, and resolves addr.
// With a source it is the site's other uplink, whose lines are others.
func (s Site) Dial(_ context.Context, source, addr string) (net.PacketConn, net.Addr, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, nil, err
	}
	ip := s.IP
	if source != "" {
		if ip, err = netip.ParseAddr(source); err != nil {
			return nil, nil, err
		}
	}
	s.wan.mu.Lock()
	s.wan.next++
	from := netip.AddrPortFrom(ip, s.wan.next)
	s.wan.mu.Unlock()
	sock, err := s.wan.open(from, true)
	return sock, net.UDPAddrFromAddrPort(to), err
}

// errInUse: the port is taken.
var errInUse = errors.New("address in use")

func (w *WAN) open(a netip.AddrPort, dialed bool) (*Socket, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sockets[a] != nil {
		return nil, fmt.Errorf("%v: %w", a, errInUse)
	}
	s := newSocket(w, a, dialed)
	w.sockets[a] = s
	return s, nil
}

// send puts a packet on its way. It never blocks.
func (w *WAN) send(p *packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.Sent++
	l := w.line
	if other, ok := w.special[[2]netip.Addr{p.from.Addr(), p.to.Addr()}]; ok {
		l = other
	}
	if p.from.Addr() == p.to.Addr() {
		l = Line{}
	}
	switch {
	case (w.cut || w.noPackets) && p.from.Addr() != p.to.Addr(), w.blocked[p.from], w.blocked[p.to]:
		w.stats.Cut++
		return
	case l.MTU > 0 && len(p.data) > l.MTU:
		w.stats.Big++
		return
	case w.rng.Float64() < l.Loss, w.lose != nil && w.lose(p.from, p.to, len(p.data)):
		w.stats.Lost++
		return
	}
	if outside, ok := w.nat[p.from]; ok {
		p.from = outside
	}
	way := w.way(p.from.Addr(), p.to.Addr())
	if !way.admit(l, p) {
		w.stats.Full++
		return
	}
	if w.rng.Float64() < l.Reorder {
		p.at = p.at.Add(l.Jitter)
	}
	if w.rng.Float64() < l.Duplicate {
		twin := *p
		way.push(&twin)
	}
	way.push(p)
}

// way finds or starts the direction between two sites. The caller holds mu.
func (w *WAN) way(from, to netip.Addr) *way {
	k := [2]netip.Addr{from, to}
	x := w.ways[k]
	if x == nil {
		x = newWay()
		w.ways[k] = x
		w.pumps.Go(func() { x.run(w.closed, w.deliver) })
	}
	return x
}

// deliver hands a packet to its socket, if there is one with room.
func (w *WAN) deliver(p *packet) {
	w.mu.Lock()
	s := w.sockets[p.to]
	if other, ok := w.nat[p.to]; ok {
		s = w.sockets[other] // nil if p.to is where the socket was seen before
	}
	if s != nil {
		w.stats.Delivered++
		w.stats.Bytes += int64(len(p.data) + overhead)
	}
	w.mu.Unlock()
	if s != nil {
		s.put(p)
	}
}
