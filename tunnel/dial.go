package tunnel

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/tunnel/congestion"
	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/pki"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// What every connection is made with.
const (
	// smallPacket passes on any line. Discovery of the path's MTU (RFC 8899) makes it
	// larger within 20 round trips. A set begins with it, so that urgent messages pass
	// at once.
	smallPacket = congestion.SmallPacket
	// stockPacket is what connections of NewReno begin with: with another initial
	// size the pacer of quic-go v0.65.0 goes on to reckon with 1280 (newPacer), wakes
	// before it may send a packet, and spins: at less than 11 Mbit/s, 12 % of a core
	// for each connection. An enrolment has NewReno, too; TCP is its way out where the
	// MTU is less.
	stockPacket = 1280
	// largePacket fills an Ethernet MTU of 1500 (1452 + 40 + 8) and is quic-go's
	// largest. Datagrams and bulk begin with it, so that frames need not wait for
	// the discovery; when it does not pass the handshake fails, and the next try
	// is small.
	largePacket = 1452
	// IdleTimeout without a packet from the peer ends a connection: four lost
	// keep-alives.
	IdleTimeout = 12 * time.Second
	keepAlive   = 3 * time.Second
	// quicHandshake without an answer ends a dial. Initial packets go at 0,
	// 0.2, 0.6, 1.4, 3 s; what a healed line answers to the last comes in time.
	quicHandshake = 4 * time.Second
	// streamWindow and connWindow bound what is in flight on one connection. A
	// NewReno of quic-go has at most 10000 packets (14.5 MB) in flight; twice
	// that is for what waits for a hole to be filled. It is also what a hostile
	// peer can make one connection hold, see the package comment.
	streamWindow = 24 << 20
	connWindow   = 32 << 20
	// maxUniStreams: four data streams are used, and two for copies; the rest is for new versions.
	maxUniStreams = 16
	// maxRawConns bounds raw connections that a peer has open to us.
	maxRawConns = 256
)

func quicConfig(packet uint16) *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           quicHandshake,
		MaxIdleTimeout:                 IdleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: connWindow,
		MaxConnectionReceiveWindow:     connWindow,
		MaxIncomingStreams:             maxRawConns,
		MaxIncomingUniStreams:          maxUniStreams,
		InitialPacketSize:              packet,
		EnableDatagrams:                true,
	}
}

// listenConfig answers each dialer with packets as large as its own first ones.
func listenConfig(m *meters, small uint16) *quic.Config {
	c := quicConfig(small)
	c.GetConfigForClient = func(info *quic.ClientInfo) (*quic.Config, error) {
		if m.sizeOf(info.RemoteAddr) >= largePacket {
			return quicConfig(largePacket), nil
		}
		return quicConfig(small), nil
	}
	return c
}

// shapedRole is the class of a connection's packets.
func shapedRole(r frame.Role) shaper.Class {
	switch r {
	case frame.Priority:
		return shaper.Urgent
	case frame.Datagrams:
		return shaper.L2
	}
	return shaper.Bulk
}

// connect makes a QUIC connection on a socket of its own. free releases the
// socket; call it when the connection is closed.
func connect(ctx context.Context, s Sockets, e ends, m *meter, conf *tls.Config, packet uint16) (*quic.Conn, func(), error) {
	pc, to, err := s.Dial(ctx, e.from, e.to)
	if err != nil {
		return nil, nil, err
	}
	sock, release := wrap(ctx, pc, &meters{only: m})
	tr := &quic.Transport{Conn: sock, ConnectionIDGenerator: newConnIDs()}
	free := func() {
		release()
		_ = tr.Close()
		_ = pc.Close()
	}
	if s := seatOf(ctx); s != nil {
		conf = s.install(tr, conf)
	}
	conn, err := tr.Dial(ctx, to, conf, quicConfig(packet))
	if err != nil {
		free()
		return nil, nil, err
	}
	return conn, free, nil
}

// dialing is what connection to make.
type dialing struct {
	path *path
	role frame.Role
	set  frame.ID
	addr string
	via  Carrier
	// move: the set takes the place of the one in use, which is still well.
	move bool
	// instead of this connection of the same set; nil: of none.
	instead *carrier
}

// dial makes a connection of the link and puts it into use.
func (l *Link) dial(ctx context.Context, d dialing) (*carrier, func(), error) {
	c := &candidate{dialed: true, move: d.move, via: d.via, path: d.path, ours: l.node.hello(l, d.role, d.set, d.path.name)}
	if d.move {
		c.ours.Held = d.set // see moves
	}
	c.meter = l.meter(d.path, d.role)
	conf := l.node.cfg.ClientTLS.Clone()
	conf.ServerName = pki.ServerName(l.site)
	conn, free, err := l.connect(ctx, l.ends(d), c, conf)
	if err != nil {
		return nil, nil, err
	}
	c.conn = conn
	c.meter.watch(conn)
	x, err := l.greet(ctx, c)
	if err != nil {
		_ = conn.CloseWithError(codeRefused, err.Error())
		if x != nil {
			l.lost(x, err)
		}
		free()
		return nil, nil, err
	}
	return x, free, nil
}

// connect makes the connection of a candidate by its carrier.
func (l *Link) connect(ctx context.Context, e ends, c *candidate, conf *tls.Config) (conn, func(), error) {
	if c.via == TCP {
		s, ok := l.node.cfg.Sockets.(Streams)
		if !ok {
			return nil, nil, errNoTCP
		}
		return connectTCP(ctx, s, e, c.meter, conf)
	}
	if l.node.stock == nil {
		ctx = withSeat(ctx)
	}
	conn, free, err := connect(ctx, l.node.cfg.Sockets, e, c.meter, conf, l.packetFor(c.path, c.ours.Role))
	return quicConn{conn}, free, err
}

// ends are the addresses of a connection.
type ends struct{ from, to string }

func (l *Link) ends(d dialing) ends {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ends{d.path.conf.Source, d.addr}
}

// packetFor is the size of the first packets of a connection.
func (l *Link) packetFor(p *path, role frame.Role) uint16 {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case time.Now().Before(p.small):
	case role == frame.Datagrams, role == frame.Bulk && l.node.stock == nil:
		return l.node.firstPacket
	}
	return l.node.smallPacket()
}

// smallPacket is the size of packets that pass on any line.
func (n *Node) smallPacket() uint16 {
	if n.stock != nil {
		return stockPacket
	}
	return smallPacket
}

func newID() (id frame.ID) {
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}
