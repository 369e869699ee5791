package tunnel

import (
	"net"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// unsentMost is the bytes that the kernel takes before it could send them: what
// it has, no other connection can carry.
const unsentMost = 256 << 10

// tuneTCP has the kernel use BBR for a connection where it can, and tells what it
// uses. Reno and CUBIC are what it has otherwise: they work, and stay far below
// the line where packets are lost (wan-transport.md, section 3).
func tuneTCP(c net.Conn) (controller string) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return ""
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return ""
	}
	_ = raw.Control(func(s uintptr) { // fails for closed connections only
		fd := int(s)
		// What fails here is a kernel without the module or an older one.
		_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr")
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMost)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(IdleTimeout/time.Millisecond))
		controller, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	return controller
}

// kernelInfo is what the kernel knows of a connection (tcp(7), TCP_INFO); nil if it is closed,
// or none of the kernel's.
func kernelInfo(c net.Conn) (info *unix.TCPInfo) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		return nil // what comes with an error is all zero, as of a peer that was heard just now
	}
	return info
}

// kernelHears tells what the kernel hears of the peer. Any segment that acknowledges, new data
// or old, counts (Linux 6.1, net/ipv4/tcp_input.c, tcp_ack), and so does data.
func kernelHears(c net.Conn) (h hearing, ok bool) {
	info := kernelInfo(c)
	if info == nil {
		return h, false
	}
	silent := time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
	return hearing{silent: silent, waiting: info.Unacked > 0, rtt: time.Duration(info.Rtt) * time.Microsecond}, true
}

// kernelStats fills in what the kernel knows of a connection.
func kernelStats(c net.Conn, s *quic.ConnectionStats) bool {
	info := kernelInfo(c)
	if info == nil {
		return false
	}
	s.SmoothedRTT = time.Duration(info.Rtt) * time.Microsecond
	s.LatestRTT, s.MinRTT = s.SmoothedRTT, time.Duration(info.Min_rtt)*time.Microsecond
	s.PacketsSent, s.PacketsLost = uint64(info.Segs_out), uint64(info.Total_retrans)
	return true
}
