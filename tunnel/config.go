package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// Config of a Node. Site, Gateway and the TLS configs are needed; for all else
// the zero value works.
type Config struct {
	// Site and Gateway name this end. They must be the names in its certificate.
	Site, Gateway string
	// Version of the software, told to peers. May be empty.
	Version string

	// ServerTLS and ClientTLS authenticate both ends with the fleet's CA.
	// ClientTLS is cloned for each dial, with pki.ServerName of the peer's site.
	ServerTLS, ClientTLS *tls.Config
	// PeerSite reads the names from a verified certificate. Nil means pki.PeerSite.
	PeerSite func(tls.ConnectionState) (site, gateway string, err error)
	// Enrol serves one stream of a stranger that ServerTLS has let in with the
	// protocol pki.EnrolProto, and returns when it is done. At most a few run at
	// once. Nil: nobody can enrol here.
	Enrol func(ctx context.Context, conn net.Conn, state tls.ConnectionState)
	// ResetKey, the same across restarts and secret, lets a restarted gateway
	// tell its peers at once that their connections are dead (RFC 9000, section
	// 10.3). Nil: they find out after IdleTimeout.
	ResetKey *[32]byte

	// Listen is the address of the one listening port, such as ":7447", in UDP,
	// and in TCP unless Carrier is QUIC. Empty: this end only dials.
	Listen string
	// Carrier of links whose Peer has none. "" means Auto.
	Carrier Carrier
	// Patience is how long a link may be away and channels go on after it. Zero means 10 minutes.
	Patience time.Duration
	// Conns is the number of bulk connections of a link that this end dials.
	// Zero: 4; of NewReno 4 to 16 by the round trip and the cap, growing to 16
	// while losses limit the goodput.
	Conns int
	// Rate caps what each link sends, in bytes per second on the wire. Zero means no cap.
	Rate int64
	// Weights of the classes of flows. Zeros mean the defaults.
	Weights Weights
	// NewReno has quic-go's own congestion controller used, with up to 16
	// connections, in place of ours.
	NewReno bool
	// Memory bounds the message bytes that one peer can make us hold. Zero means 512 MiB.
	Memory int64
	// Logger may be nil, which discards.
	Logger *slog.Logger

	// OnDatagram gets each datagram; b is the callee's. It is called by one
	// goroutine per link, so while it blocks datagrams of that link are dropped.
	OnDatagram func(site string, kind byte, b []byte)
	// OnExpress gets what came of express datagrams, each of size bytes but the
	// last, which may be shorter; it may be anything that anybody has sent. It
	// borrows b, and may change it. It returns the site that it has found to be
	// the sender of any of them, "" if none. It is called by one goroutine per
	// socket, and so at the same time by several. Nil: there are no express datagrams.
	OnExpress func(b []byte, size int) (site string)
	// Sockets makes the sockets. Nil means UDP and TCP. Without the methods of
	// Streams there is no TCP. Tests put a simulated WAN here.
	Sockets Sockets
}

// Sockets makes packet sockets.
type Sockets interface {
	// Listen opens the listening socket.
	Listen(addr string) (net.PacketConn, error)
	// Dial opens a new socket to be used for one connection to addr, and
	// resolves addr. from is the IP address to send from; empty lets the system
	// choose.
	Dial(ctx context.Context, from, addr string) (net.PacketConn, net.Addr, error)
}

// Peer is another site. Without addresses it is not dialed, but may dial us.
type Peer struct {
	Site  string
	Addrs []string // "host:port", tried in turn
	// Carrier of the link. "" means that of the Config.
	Carrier Carrier
	// Paths are several ways to the peer, at most 4; Addrs is then not used.
	Paths []Path
}

// paths are the ways to the peer, of which there is at least one.
func (p Peer) paths() []Path {
	if len(p.Paths) > 0 {
		return p.Paths
	}
	return []Path{{Addrs: p.Addrs}}
}

func (p Peer) check(site string) error {
	if p.Site == "" || p.Site == site {
		return fmt.Errorf("tunnel: %q cannot be a peer of %q", p.Site, site)
	}
	if len(p.Paths) > maxPaths {
		return fmt.Errorf("tunnel: %d paths to %s, at most %d", len(p.Paths), p.Site, maxPaths)
	}
	names := make(map[string]bool)
	for _, x := range p.paths() {
		if names[x.Name] || x.Rate < 0 || x.Cost < 0 || len(x.Name) > maxText {
			return fmt.Errorf("tunnel: path %q to %s is there twice, or out of range: rate %d, cost %d", x.Name, p.Site, x.Rate, x.Cost)
		}
		names[x.Name] = true
	}
	return nil
}

// Limits of a link.
const (
	// maxConns is where more NewReno connections gain less than they cost
	// (wan-transport.md, section 3).
	maxConns = 16
	// startConns of bulk at least: enough for clean links.
	startConns = 4
	// maxChannels bounds the channels of a link: 60 moves with 16 connections each.
	maxChannels = 1024
	// baseWindow is what each channel may send before it has been granted
	// more: a quarter of a GiB if all channels exist and use it.
	baseWindow = 256 << 10
	// bulkWindow and urgentWindow are the most that a channel is granted:
	// 128 MiB is 2 x 1 Gbit/s x 500 ms.
	bulkWindow   = 128 << 20
	urgentWindow = 4 << 20
	// messageCost is added to the length of each message when windows are
	// reckoned, so that small messages have a bound too.
	messageCost = 64
	// defaultMemory is room for eight channels at 1 Gbit/s and 150 ms.
	defaultMemory = 512 << 20
	// memorySlack beyond Memory is for messages larger than their window:
	// eight at once.
	memorySlack = 8 * frame.MaxMessage
	// maxText bounds an abort's reason.
	maxText = frame.MaxText
)

func (c Config) withDefaults() (_ Config, err error) {
	switch {
	case c.Site == "":
		return c, errors.New("tunnel: config without a site")
	case c.ClientTLS == nil || (c.Listen != "" && c.ServerTLS == nil):
		return c, errors.New("tunnel: config without TLS")
	case c.Rate < 0 || c.Conns < 0 || c.Conns > maxConns || c.Patience < 0 || c.Memory < 0:
		return c, fmt.Errorf("tunnel: config out of range: rate %d, conns %d, patience %v, memory %d",
			c.Rate, c.Conns, c.Patience, c.Memory)
	}
	if c.Carrier, err = ParseCarrier(string(c.Carrier)); err != nil {
		return c, fmt.Errorf("tunnel: config: %w", err)
	}
	if err := c.Weights.check(); err != nil {
		return c, err
	}
	c.Weights = c.Weights.WithDefaults()
	c.Patience = cmp.Or(c.Patience, 10*time.Minute)
	c.Memory = cmp.Or(c.Memory, defaultMemory)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.PeerSite == nil {
		c.PeerSite = pki.PeerSite
	}
	c.ClientTLS = withALPN(c.ClientTLS)
	c.ServerTLS = withALPN(c.ServerTLS)
	if c.Sockets == nil {
		c.Sockets = udpSockets{}
	}
	return c, nil
}

func withALPN(t *tls.Config) *tls.Config {
	if t == nil {
		return nil
	}
	t = t.Clone()
	t.MinVersion = tls.VersionTLS13
	if len(t.NextProtos) == 0 {
		t.NextProtos = []string{pki.Proto}
	}
	return t
}
