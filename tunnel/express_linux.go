package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/bell"
)

// An expressSocket reads and writes many datagrams at a time. Who reads or writes
// waits by a bell.
type expressSocket struct {
	v6    bool
	note  atomic.Pointer[segmentNote]
	plain atomic.Bool // the kernel does not cut writes towards here
	zone  lastZone

	dropped *atomic.Uint64 // datagrams that found the kernel's buffer full; set before read

	in      *bell.Bell
	out     *bell.Bell
	waiting sync.Mutex // held by who waits for out

	mu sync.RWMutex // held, shared, by who uses what follows; close takes it away
	fd int          // -1: it is closed
}

// segmentNote is the control message that has a write cut (UDP_SEGMENT, udp(7)).
type segmentNote struct {
	size int
	oob  []byte
}

// newExpressSocket makes one of a UDP socket, which it takes.
func newExpressSocket(pc net.PacketConn) (*expressSocket, error) {
	u, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: no UDP socket but a %T", ErrNoExpress, pc), pc.Close())
	}
	tune(u)
	s := &expressSocket{}
	err := control(u, func(fd int) (err error) {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		s.v6 = domain == unix.AF_INET6
		if err == nil {
			s.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		}
		return err
	})
	if err = errors.Join(err, u.Close()); err == nil { // so that the runtime does not watch it
		err = s.hang()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: taking the socket: %w", ErrNoExpress, err)
	}
	return s, nil
}

// hang hangs the bells up.
func (s *expressSocket) hang() (err error) {
	if s.in, err = bell.New(s.fd, unix.EPOLLIN); err != nil {
		return errors.Join(err, unix.Close(s.fd))
	}
	if s.out, err = bell.New(s.fd, unix.EPOLLOUT); err != nil {
		return errors.Join(err, s.in.Close(), unix.Close(s.fd))
	}
	return nil
}

// close ends read and write. It may be repeated.
func (s *expressSocket) close() {
	_, _ = s.in.Close(), s.out.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// segment is the note for a size.
func (s *expressSocket) segment(size int) []byte {
	n := s.note.Load()
	if n == nil || n.size != size {
		n = &segmentNote{size: size, oob: make([]byte, unix.CmsgSpace(2))}
		if unix.SizeofCmsghdr == 16 { // a length of 8 or of 4 bytes
			binary.NativeEndian.PutUint64(n.oob, uint64(unix.CmsgLen(2)))
		} else {
			binary.NativeEndian.PutUint32(n.oob, uint32(unix.CmsgLen(2)))
		}
		binary.NativeEndian.PutUint32(n.oob[unix.SizeofCmsghdr-8:], unix.IPPROTO_UDP)
		binary.NativeEndian.PutUint32(n.oob[unix.SizeofCmsghdr-4:], unix.UDP_SEGMENT)
		binary.NativeEndian.PutUint16(n.oob[unix.CmsgLen(0):], uint16(size))
		s.note.Store(n)
	}
	return n.oob
}

// write sends datagrams of size bytes, of which the last may be shorter.
func (s *expressSocket) write(b []byte, size int, to netip.AddrPort) error {
	addr := s.sockaddr(to)
	if len(b) > size && !s.plain.Load() {
		err := s.send(b, s.segment(size), addr)
		if !errors.Is(err, unix.EIO) { // a device without checksums, or IPsec (net/ipv4/udp.c, udp_send_skb)
			return err
		}
		s.plain.Store(true)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if err := s.send(b[:n], nil, addr); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// sockaddr is an address for the socket's family.
func (s *expressSocket) sockaddr(to netip.AddrPort) unix.Sockaddr {
	if !s.v6 {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	}
	a := &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if name := to.Addr().Zone(); name != "" {
		a.ZoneId = s.zone.find(func(z zone) bool { return z.name == name }, func() (*net.Interface, error) { return net.InterfaceByName(name) }).index
	}
	return a
}

// send makes one write, and waits until the kernel has room for it.
func (s *expressSocket) send(b, oob []byte, to unix.Sockaddr) error {
	for {
		err := s.try(func(fd int) error {
			_, err := unix.SendmsgN(fd, b, oob, to, unix.MSG_DONTWAIT)
			return err
		})
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		s.waiting.Lock()
		err = s.out.Wait()
		s.waiting.Unlock()
		if err != nil {
			return err
		}
	}
}

// receive makes one read, once there is something.
func (s *expressSocket) receive(b, oob []byte) (n, oobn int, from unix.Sockaddr, err error) {
	for {
		err = s.try(func(fd int) (err error) {
			n, oobn, _, from, err = unix.Recvmsg(fd, b, oob, unix.MSG_DONTWAIT)
			return err
		})
		if !errors.Is(err, unix.EAGAIN) {
			return n, oobn, from, err
		}
		if err = s.in.Wait(); err != nil {
			return 0, 0, nil, err
		}
	}
}

// try uses the descriptor, and again after a signal.
func (s *expressSocket) try(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for {
		if s.fd < 0 {
			return os.ErrClosed
		}
		if err := f(s.fd); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// read gives what comes, joined by the kernel where it can, until the socket is
// closed. What it gives is lent.
func (s *expressSocket) read(give func(b []byte, size int, from netip.AddrPort)) {
	b, oob := make([]byte, groLen), make([]byte, groOOB)
	counted := uint32(0) // of those, by the kernel's count, which wraps
	for {
		n, oobn, from, err := s.receive(b, oob)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil { // such as an ICMP message that somebody else has drawn
			time.Sleep(time.Millisecond) // it may be one that stays
			continue
		}
		if n == 0 {
			continue
		}
		size := n
		said := readNotes(oob[:oobn])
		if said.segment > 0 {
			size = min(said.segment, n)
		}
		if said.overflows && said.dropped != counted {
			s.dropped.Add(uint64(said.dropped - counted))
			counted = said.dropped
		}
		give(b[:n], size, s.addrPort(from))
	}
}

// addrPort is what the kernel says of a sender.
func (s *expressSocket) addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if index := a.ZoneId; index != 0 {
			ip = ip.WithZone(s.zone.find(func(z zone) bool { return z.index == index }, func() (*net.Interface, error) { return net.InterfaceByIndex(int(index)) }).name)
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// zone is the device of a link-local address.
type zone struct {
	index uint32
	name  string
}

// lastZone remembers one: a socket has seldom two, and a look at the devices takes
// longer than a write.
type lastZone struct{ atomic.Pointer[zone] }

func (l *lastZone) find(is func(zone) bool, look func() (*net.Interface, error)) zone {
	if z := l.Load(); z != nil && is(*z) {
		return *z
	}
	dev, err := look()
	if err != nil {
		return zone{} // it has gone; the kernel refuses the address, or nobody knows it
	}
	z := zone{uint32(dev.Index), dev.Name}
	l.Store(&z)
	return z
}

// shareExpress opens a second socket on the port of a listening one, and has the
// kernel sort what comes: into the second what begins with two clear bits. The
// first was bound alone, so that a second gateway on the port is refused; from
// now on a process of the same user could join.
func shareExpress(ctx context.Context, pc net.PacketConn) (*expressSocket, error) {
	first, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("%w: no UDP socket but a %T", ErrNoExpress, pc)
	}
	if err := control(first, reusePort); err != nil {
		return nil, fmt.Errorf("%w: sharing the port: %w", ErrNoExpress, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return controlRaw(c, reusePort) }}
	second, err := lc.ListenPacket(ctx, first.LocalAddr().Network(), first.LocalAddr().String())
	if err != nil {
		return nil, fmt.Errorf("%w: sharing the port: %w", ErrNoExpress, err)
	}
	u := second.(*net.UDPConn)
	if err := control(first, sortPackets); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: sorting packets: %w", ErrNoExpress, err), u.Close())
	}
	return newExpressSocket(u)
}

func reusePort(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }

// sortPackets attaches the filter that chooses a socket of the port by its number
// in the order of binding (SO_ATTACH_REUSEPORT_CBPF, socket(7)). It sees the UDP
// payload.
func sortPackets(fd int) error {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: 0x40, SkipTrue: 1},
		bpf.RetConstant{Val: 1}, // express
		bpf.RetConstant{Val: 0}, // QUIC
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

// control does something to the descriptor of a socket.
func control(u *net.UDPConn, f func(fd int) error) error {
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	return controlRaw(raw, f)
}

func controlRaw(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if failed := c.Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil {
		return failed
	}
	return err
}
