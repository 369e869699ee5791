package hostnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

// In mode direct the gateway does not see what passes. A packet socket on the
// device over the underlay does, as tcpdump would: with frames as the kernel has
// them, before it cuts and after it has joined them, without those that rules have
// kept from leaving, and with those from other sites that rules then drop.

// captureBuffer is what may wait for who captures, in bytes: 5 ms at 10 Gbit/s. What
// does not fit the kernel leaves out and counts.
const captureBuffer = 8 << 20

// captureLook is how often a capture looks whether its segment is still there. The kernel
// tells a socket once that its device is down, and nothing when one that is down goes.
const captureLook = time.Second

// maxTag is the length of a VLAN tag, which the kernel tells beside the frame.
const maxTag = 4

// Capture gives f the frames that the kernel carries of a segment in mode direct.
func (n *Net) Capture(ctx context.Context, vni uint32, o l2ext.CaptureOptions, f func(l2ext.Captured) error) (missed uint64, err error) {
	a, ok := n.attachment(vni)
	if !ok || a.direct == 0 {
		return 0, fmt.Errorf("the kernel carries no segment with VNI %d: %w", vni, unix.ENODEV)
	}
	c, err := n.openCapture(a.direct, o.Snap)
	if err != nil {
		return 0, err
	}
	defer c.f.Close()
	defer context.AfterFunc(ctx, func() { c.f.SetReadDeadline(time.Unix(1, 0)) })() // it is long past
	for look := true; ; {
		if look {
			if err := n.captured(vni, a.direct); err != nil {
				return c.missed(), err
			}
			if err := c.f.SetReadDeadline(time.Now().Add(captureLook)); err != nil {
				return c.missed(), fmt.Errorf("reading the packet socket: %w", err)
			}
		}
		if ctx.Err() != nil { // or the deadline that says so may just have been replaced
			return c.missed(), nil
		}
		frame, err := c.next()
		look = errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, unix.ENETDOWN) // down for a while, or for good
		switch {
		case ctx.Err() != nil:
			return c.missed(), nil
		case look || errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return c.missed(), fmt.Errorf("reading the packet socket: %w", err)
		}
		if err := f(frame); err != nil {
			return c.missed(), err
		}
	}
}

// captured says when a device is a segment's no more.
func (n *Net) captured(vni uint32, device int) error {
	if a, _ := n.attachment(vni); a.direct != device {
		return fmt.Errorf("the device of VNI %d has gone: %w", vni, unix.ENODEV)
	}
	if _, err := n.linkByIndex(device); err != nil {
		return fmt.Errorf("the device of VNI %d has gone: %w", vni, err)
	}
	return nil
}

// capture is a packet socket on one device.
type capture struct {
	f    *os.File
	raw  syscall.RawConn
	snap int
	buf  []byte
	oob  []byte // what the kernel tells of a frame
}

func (n *Net) openCapture(device, snap int) (*capture, error) {
	f, err := n.openPacket(packetSpec{
		filter: []bpf.Instruction{bpf.RetConstant{Val: uint32(snap)}}, // all frames, cut there
		device: device,
		set: func(fd int) error {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer))
		},
	})
	if err != nil {
		return nil, err
	}
	c := &capture{f: f, snap: snap, buf: make([]byte, snap), oob: make([]byte, 256)}
	if c.raw, err = f.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the packet socket: %w", err), f.Close())
	}
	return c, nil
}

// next waits for a frame.
func (c *capture) next() (l2ext.Captured, error) {
	var n, told int
	var from unix.Sockaddr
	var err error
	waited := c.raw.Read(func(fd uintptr) bool {
		n, told, _, from, err = unix.Recvmsg(int(fd), c.buf, c.oob, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(waited, err); err != nil {
		return l2ext.Captured{}, err
	}
	l, _ := from.(*unix.SockaddrLinklayer)
	return capturedOf(c.buf[:n], c.oob[:told], c.snap, l == nil || l.Pkttype != unix.PACKET_OUTGOING), nil
}

// missed is how many frames did not fit since it was asked last.
func (c *capture) missed() (missed uint64) {
	_ = c.raw.Control(func(fd uintptr) {
		if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			missed = uint64(s.Drops)
		}
	})
	return missed
}

// struct tpacket_auxdata of include/uapi/linux/if_packet.h: status, length of the
// frame, bytes given, each 4; two offsets, VLAN tag and its type, each 2.
const (
	auxLen       = 20
	auxFrameLen  = 4
	auxTag       = 16
	auxTagType   = 18
	auxHasTag    = 0x10 // TP_STATUS_VLAN_VALID
	auxHasTagTyp = 0x40 // TP_STATUS_VLAN_TPID_VALID
)

// capturedOf makes a frame of what the kernel tells: b, which is copied, and beside it the
// length, the time, and the VLAN tag.
func capturedOf(b, told []byte, snap int, inward bool) l2ext.Captured {
	out := l2ext.Captured{Len: len(b), Inward: inward}
	frame := make([]byte, 0, len(b)+maxTag)
	frame = append(frame, b...)
	messages, _ := unix.ParseSocketControlMessage(told) // the kernel's own; without it the frame is still there
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= auxLen:
			status := binary.NativeEndian.Uint32(m.Data)
			out.Len = max(out.Len, int(binary.NativeEndian.Uint32(m.Data[auxFrameLen:])))
			if status&auxHasTag != 0 && len(b) >= 12 {
				kind := uint16(unix.ETH_P_8021Q)
				if status&auxHasTagTyp != 0 {
					kind = binary.NativeEndian.Uint16(m.Data[auxTagType:])
				}
				tag := binary.BigEndian.AppendUint16(nil, kind)
				tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[auxTag:]))
				frame = append(append(append(frame[:0], b[:12]...), tag...), b[12:]...)
				out.Len += maxTag
			}
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16:
			out.At = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	if out.At.IsZero() { // a machine of 32 bits tells it in another form
		out.At = time.Now()
	}
	out.Frame = frame[:min(len(frame), snap)]
	return out
}
