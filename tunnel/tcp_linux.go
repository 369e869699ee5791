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

// kernelStats fills in what the kernel knows of a connection (tcp(7), TCP_INFO).
func kernelStats(c net.Conn, s *quic.ConnectionStats) bool {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		return false
	}
	s.SmoothedRTT = time.Duration(info.Rtt) * time.Microsecond
	s.LatestRTT, s.MinRTT = s.SmoothedRTT, time.Duration(info.Min_rtt)*time.Microsecond
	s.PacketsSent, s.PacketsLost = uint64(info.Segs_out), uint64(info.Total_retrans)
	return true
}
