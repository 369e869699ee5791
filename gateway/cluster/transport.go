package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's way to the world: the Carrier. It lives as long as
// one Run.
type transport struct {
	// Constant.
	site    string // ours
	carrier Carrier
	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context // ends with Shutdown; memberlist hands none to Dial
	stop    context.CancelFunc

	mu    sync.Mutex // guards what follows
	sites map[netip.Addr]string
	open  map[*framedConn]struct{}
	taken []byte // the last snapshot
	ended bool

	conns sync.WaitGroup // of open
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// maxConns bounds connections that are open at a time, each of which may hold
// one message: 16 MiB. A fleet of maxMembers has one every tenth of a second.
const maxConns = 64

var errEnded = errors.New("membership has ended")

func newTransport(site string, carrier Carrier) *transport {
	t := &transport{
		site:    site,
		carrier: carrier,
		// 256 packets are some 5 s of traffic of the largest fleet; beyond
		// them memberlist is stuck and packets may be lost like on any net.
		packets: make(chan *memberlist.Packet, 256),
		streams: make(chan net.Conn), // memberlist starts a goroutine for each at once
		sites:   map[netip.Addr]string{},
		open:    map[*framedConn]struct{}{},
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// learn remembers the address of a site. It says whether there was room.
func (t *transport) learn(site string) bool {
	addr, _ := netip.AddrFromSlice(siteIP(site))
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.sites[addr]; !ok && len(t.sites) >= maxMembers {
		return false
	}
	t.sites[addr] = site
	return true
}

// FinalAdvertiseAddr is our own address.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return siteIP(t.site), nodePort, nil
}

// siteOf is the site that memberlist means by an address.
func (t *transport) siteOf(a memberlist.Address) (string, error) {
	if a.Name != "" {
		site, _, err := splitName(a.Name)
		return site, err
	}
	addr, err := addrKey(a.Addr)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	site, ok := t.sites[addr]
	if !ok {
		return "", fmt.Errorf("address %s belongs to no known site", a.Addr)
	}
	return site, nil
}

// WriteTo sends a packet to an address.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet. While the link is down it fails as UDP does,
// for memberlist counts a probe that cannot be sent only then (v0.7.0,
// state.go:failedRemote).
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	site, err := t.siteOf(a)
	if err != nil {
		return now, err
	}
	if err := t.carrier.SendDatagram(site, b); err != nil {
		return now, &net.OpError{Op: "write", Net: "udp", Addr: siteAddr(site), Err: err}
	}
	return now, nil
}

// PacketCh gives the packets that have come.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh gives the connections that have come.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout connects to an address.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout connects to a gateway, or catches our own state.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	site, err := t.siteOf(a)
	if err != nil {
		return nil, err
	}
	if site == t.site && a.Name == "" {
		return snapshot{t.keep}, nil
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.carrier.Dial(ctx, site)
	if err != nil {
		return nil, err
	}
	return t.track(site, conn)
}

// track frames a connection and closes it with the transport at the latest.
func (t *transport) track(site string, conn net.Conn) (*framedConn, error) {
	c := &framedConn{Conn: conn, local: siteAddr(t.site), remote: siteAddr(site)}
	c.done = func() {
		t.mu.Lock()
		delete(t.open, c)
		t.mu.Unlock()
		t.conns.Done()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, errors.Join(errEnded, conn.Close())
	}
	if len(t.open) >= maxConns {
		return nil, errors.Join(errors.New("too many connections"), conn.Close())
	}
	t.open[c] = struct{}{}
	t.conns.Add(1)
	return c, nil
}

// deliver hands a packet to memberlist; it does not wait.
func (t *transport) deliver(site string, b []byte) error {
	if err := checkPacket(b); err != nil {
		return err
	}
	select {
	case t.packets <- &memberlist.Packet{Buf: b, From: siteAddr(site), Timestamp: time.Now()}:
		return nil
	default:
		return errors.New("too many packets")
	}
}

// accept hands a connection to memberlist.
func (t *transport) accept(site string, conn net.Conn) error {
	c, err := t.track(site, conn)
	if err != nil {
		return err
	}
	select {
	case t.streams <- c:
		return nil
	case <-t.ctx.Done():
		return errors.Join(errEnded, c.Close())
	}
}

// keep is where snapshots end up.
func (t *transport) keep(state []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = state
}

// takeSnapshot gives the state that was caught last.
func (t *transport) takeSnapshot() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.taken
	t.taken = nil
	return b
}

// Shutdown cuts all connections. memberlist calls it first of all when it ends.
func (t *transport) Shutdown() error {
	t.stop()
	t.mu.Lock()
	t.ended = true
	for c := range t.open {
		// memberlist closes it again, and says by that that it has let go.
		_ = c.Conn.Close()
	}
	t.mu.Unlock()
	return nil
}
