//go:build !linux

package tunnel

import (
	"net"

	"github.com/quic-go/quic-go"
)

// tuneTCP: only Linux lets a socket choose its controller.
func tuneTCP(net.Conn) string { return "" }

// kernelStats: only Linux tells.
func kernelStats(net.Conn, *quic.ConnectionStats) bool { return false }

// kernelHears: only Linux tells.
func kernelHears(net.Conn) (hearing, bool) { return hearing{}, false }
