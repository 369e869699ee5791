package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// An expressSocket reads and writes many datagrams at a time.
type expressSocket struct {
	u     *net.UDPConn
	note  atomic.Pointer[segmentNote]
	plain atomic.Bool // the kernel does not cut writes towards here

	dropped *atomic.Uint64 // datagrams that found the kernel's buffer full; set before read
}

// segmentNote is the control message that has a write cut (UDP_SEGMENT, udp(7)).
type segmentNote struct {
	size int
	oob  []byte
}

func newExpressSocket(pc net.PacketConn) (*expressSocket, error) {
	u, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("%w: no UDP socket but a %T", ErrNoExpress, pc)
	}
	tune(u)
	return &expressSocket{u: u}, nil
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
	if len(b) > size && !s.plain.Load() {
		_, _, err := s.u.WriteMsgUDPAddrPort(b, s.segment(size), to)
		if !errors.Is(err, unix.EIO) { // a device without checksums, or IPsec (net/ipv4/udp.c, udp_send_skb)
			return err
		}
		s.plain.Store(true)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if _, err := s.u.WriteToUDPAddrPort(b[:n], to); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// read gives what comes, joined by the kernel where it can, until the socket is
// closed. What it gives is lent.
func (s *expressSocket) read(give func(b []byte, size int, from netip.AddrPort)) {
	b, oob := make([]byte, groLen), make([]byte, groOOB)
	counted := uint32(0) // of those, by the kernel's count, which wraps
	for {
		n, oobn, _, from, err := s.u.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
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
		give(b[:n], size, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
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
	s, err := newExpressSocket(u)
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return s, nil
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
