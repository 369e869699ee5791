package tunnel

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/ccslot"
	"golang.org/x/net/ipv4"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// Bytes on the wire around each UDP payload: Ethernet 14, IP 20 or 40, UDP 8.
const (
	overhead4 = 14 + 20 + 8
	overhead6 = 14 + 40 + 8
)

// traffic counts bytes on the wire.
type traffic struct {
	sent, received atomic.Int64
	dropped        atomic.Uint64 // packets that found the buffer of their socket full
	pressed        atomic.Uint64 // reads whose connection had no room in time: quic-go may have dropped of them
}

// A meter shapes and counts the packets of one connection.
type meter struct {
	bucket *shaper.Bucket
	class  shaper.Class
	count  *traffic
	// waiting tells how many received packets the connection has not taken yet;
	// nil inside: not known.
	waiting atomic.Pointer[func() int]
	path    *path     // nil for a stranger
	born    time.Time // what the path's times count from
}

// meter makes one for a connection of the link.
func (l *Link) meter(p *path, role frame.Role) *meter {
	class := shapedRole(role)
	return &meter{bucket: l.bucket, class: class, count: &l.wire[class], path: p, born: l.born}
}

// add counts bytes on the wire.
func (m *meter) add(sent, received int) {
	m.count.sent.Add(int64(sent))
	m.count.received.Add(int64(received))
	if m.path != nil {
		m.path.wire.sent.Add(int64(sent))
		m.path.wire.received.Add(int64(received))
	}
}

// left counts a write of n bytes on the wire.
func (m *meter) left(n int) {
	m.add(n, 0)
	if m.path != nil {
		m.path.life.left(time.Since(m.born))
	}
}

// came counts a packet of n bytes on the wire.
func (m *meter) came(n int) {
	m.add(0, n)
	if m.path != nil {
		m.path.life.came(time.Since(m.born))
	}
}

// meters finds the meter of a remote address. A dialed socket has one
// connection; a listening one has many.
type meters struct {
	only    *meter         // of a dialed socket
	dropped *atomic.Uint64 // packets that found the socket's buffer full; not of a dialed one

	mu     sync.RWMutex // guards what follows; taken for each packet or batch
	byAddr map[netip.AddrPort]*meter
	// sizes remembers how large the first packets of strangers were. It is
	// how we know whether a dialer fell back to small packets.
	sizes map[netip.AddrPort]int
}

// maxStrangers bounds meters.sizes. An attacker who fills it makes us answer
// other strangers with small packets; nothing else.
const maxStrangers = 4096

func key(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (m *meters) of(a net.Addr) *meter {
	if m.only != nil {
		return m.only
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byAddr[key(a)]
}

func (m *meters) set(a net.Addr, x *meter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byAddr[key(a)] = x
	delete(m.sizes, key(a))
}

// remove forgets the meter x, under all addresses.
func (m *meters) remove(x *meter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for a, y := range m.byAddr {
		if x == y {
			delete(m.byAddr, a)
		}
	}
}

// stranger notes the size of a first packet: one with a long header (RFC 9000,
// section 17.2) from an address that has no meter.
func (m *meters) stranger(a net.Addr, b []byte) {
	if len(b) == 0 || b[0]&0x80 == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sizes) >= maxStrangers {
		clear(m.sizes)
	}
	m.sizes[key(a)] = len(b)
}

func (m *meters) sizeOf(a net.Addr) int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sizes[key(a)]
}

// wireLen is the length on the wire of a write of n bytes in packets.
func wireLen(n, packets int, to net.Addr) int {
	if u, ok := to.(*net.UDPAddr); ok && u.IP.To4() == nil {
		return n + packets*overhead6
	}
	return n + packets*overhead4
}

// socket is what both kinds of wrapped socket share.
type socket struct {
	meters *meters
	wait   func(m *meter, n int) error // blocks until n bytes may leave
	cancel context.CancelFunc          // ends all waits
}

func newSocket(ctx context.Context, m *meters) socket {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return socket{meters: m, cancel: cancel, wait: func(m *meter, n int) error {
		return m.bucket.Wait(ctx, m.class, n)
	}}
}

// leave waits for the turn of a write and counts it.
func (s *socket) leave(n, packets int, to net.Addr) error {
	m := s.meters.of(to)
	if m == nil {
		return nil // a handshake: not known to be of any link
	}
	wire := wireLen(n, packets, to)
	if err := s.wait(m, wire); err != nil {
		return err
	}
	m.left(wire)
	return nil
}

func (s *socket) arrive(b []byte, from net.Addr) {
	if m := s.meters.of(from); m != nil {
		m.came(wireLen(len(b), 1, from))
	} else {
		s.meters.stranger(from, b)
	}
}

// arriveAll takes in packets that came one after the other from one address. It
// tells whose they are; nil: not known.
func (s *socket) arriveAll(ms []ipv4.Message) *meter {
	from := ms[0].Addr
	m := s.meters.of(from)
	size := 0
	for i := range ms {
		if m == nil {
			s.meters.stranger(from, ms[i].Buffers[0][:ms[i].N])
		}
		size += ms[i].N
	}
	if m != nil {
		m.came(wireLen(size, len(ms), from))
	}
	return m
}

// wrap makes a socket that shapes and counts. A *net.UDPConn keeps its batched
// reads and its segmentation offload. Before closing it, call cancel.
func wrap(ctx context.Context, pc net.PacketConn, m *meters) (net.PacketConn, context.CancelFunc) {
	s := newSocket(ctx, m)
	if u, ok := pc.(*net.UDPConn); ok {
		// ipv4 serves IPv6 as well here: both Messages are one type, and
		// reading them is the same system call.
		x := &udpSocket{UDPConn: u, socket: s, batch: ipv4.NewPacketConn(u)}
		if tune(u) {
			dropped := m.dropped
			if m.only != nil {
				dropped = &m.only.count.dropped
			}
			x.joined = newSplitter(func(ms []ipv4.Message) (int, error) { return x.batch.ReadBatch(ms, 0) }, dropped)
		}
		return x, s.cancel
	}
	return &packetSocket{PacketConn: pc, socket: s}, s.cancel
}

// udpSocket is a quic.OOBCapablePacketConn.
type udpSocket struct {
	*net.UDPConn
	socket
	batch  *ipv4.PacketConn
	joined *splitter // nil: a read brings one packet
}

// ReadBatch makes quic-go read through us rather than around us.
func (s *udpSocket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := 0, error(nil)
	if s.joined != nil {
		n, err = s.joined.packets(ms)
	} else {
		n, err = s.batch.ReadBatch(ms, flags)
	}
	for i, j := 0, 0; i < n; i = j {
		for j = i + 1; j < n && (ms[j].Addr == ms[i].Addr || key(ms[j].Addr) == key(ms[i].Addr)); j++ {
		}
		s.press(s.arriveAll(ms[i:j]), n)
	}
	return n, err
}

const (
	// pressWait is how long the reader waits for a connection that is busy, at
	// most: others may be waiting behind it. The socket's buffer holds what comes
	// meanwhile.
	pressWait = 20 * time.Millisecond
	pressStep = 250 * time.Microsecond
)

// press waits until a connection has room for n more packets: quic-go would
// drop them, and our controller would take that for congestion.
func (s *udpSocket) press(m *meter, n int) {
	if m == nil {
		return
	}
	waiting := m.waiting.Load()
	if waiting == nil {
		return
	}
	for waited := time.Duration(0); (*waiting)()+n > ccslot.QueueLimit; waited += pressStep {
		if waited >= pressWait {
			m.count.pressed.Add(1)
			return
		}
		time.Sleep(pressStep)
	}
}

// WriteMsgUDP sends what may be a batch of up to 20 KiB (quic-go). At less than
// 80 Mbit/s that is more than 2 ms, and so it leaves in parts.
func (s *udpSocket) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (int, int, error) {
	sent, size := 0, segmentSize(oob)
	most := s.most(size, to)
	for len(b) > most {
		n, oobn, err := s.write(b[:most], oob, size, to)
		if err != nil {
			return n, oobn, err
		}
		sent += n
		b = b[most:]
	}
	n, oobn, err := s.write(b, oob, size, to)
	return sent + n, oobn, err
}

// write sends packets of size bytes; the last may be shorter.
func (s *udpSocket) write(b, oob []byte, size int, to *net.UDPAddr) (n, oobn int, err error) {
	if err := s.leave(len(b), segments(len(b), size), to); err != nil {
		return 0, 0, err
	}
	return s.UDPConn.WriteMsgUDPAddrPort(b, oob, to.AddrPort()) // allocates nothing, other than with to
}

// most is how many bytes of packets of size may be written at once: whole
// packets, as many as the shaper passes without a burst.
func (s *socket) most(size int, to net.Addr) int {
	m := s.meters.of(to)
	if m == nil || size == 0 {
		return math.MaxInt
	}
	return max(m.bucket.Quantum()/wireLen(size, 1, to), 1) * size
}

// segments is the number of packets that a write of n bytes makes.
func segments(n, size int) int {
	if size == 0 {
		return 1
	}
	return max((n+size-1)/size, 1)
}

func (s *udpSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := s.leave(len(b), 1, to); err != nil {
		return 0, err
	}
	return s.UDPConn.WriteTo(b, to)
}

// packetSocket is any other socket.
type packetSocket struct {
	net.PacketConn
	socket
}

func (s *packetSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(b)
	if err == nil {
		s.arrive(b[:n], from)
	}
	return n, from, err
}

func (s *packetSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := s.leave(len(b), 1, to); err != nil {
		return 0, err
	}
	return s.PacketConn.WriteTo(b, to)
}

// SetReadBuffer and SetWriteBuffer spare the logs a warning of quic-go.
func (s *packetSocket) SetReadBuffer(int) error  { return nil }
func (s *packetSocket) SetWriteBuffer(int) error { return nil }

// udpSockets is Sockets over UDP.
type udpSockets struct{}

func (udpSockets) Listen(addr string) (net.PacketConn, error) {
	return net.ListenPacket("udp", addr)
}

func (udpSockets) Dial(ctx context.Context, from, addr string) (net.PacketConn, net.Addr, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, nil, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return nil, nil, err
	}
	local, err := sourceOf(from)
	if err != nil {
		return nil, nil, err
	}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(reachable(ips, local), uint16(n)))
	network := "udp6"
	if to.IP.To4() != nil {
		network = "udp4"
	}
	pc, err := net.ListenUDP(network, local)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a socket for %s: %w", addr, err)
	}
	return pc, to, nil
}

// sourceOf is the local end of a socket that sends from an IP address; nil lets
// the system choose.
func sourceOf(from string) (*net.UDPAddr, error) {
	if from == "" {
		return nil, nil
	}
	ip, err := netip.ParseAddr(from)
	if err != nil {
		return nil, fmt.Errorf("source address: %w", err)
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)), nil
}

// reachable is the first of the addresses of a host that is of the IP family of the local end,
// or just the first if none is, or the system chooses that end.
func reachable(ips []netip.Addr, local *net.UDPAddr) netip.Addr {
	if local != nil {
		v4 := local.IP.To4() != nil
		if i := slices.IndexFunc(ips, func(ip netip.Addr) bool { return ip.Unmap().Is4() == v4 }); i >= 0 {
			return ips[i].Unmap()
		}
	}
	return ips[0].Unmap()
}
