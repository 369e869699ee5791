package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/ccslot"

	"github.com/longhaul-project/longhaul/tunnel/congestion"
	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// A seat is where our congestion controller of one connection waits until the
// connection is known to belong to a link. It goes along in the connection's
// context.
type seat struct {
	member *congestion.Member
	err    error // why the connection has NewReno; written during the handshake
}

type seatKey struct{}

// withSeat marks a connection that is about to be made as one for our controller.
func withSeat(ctx context.Context) context.Context {
	return context.WithValue(ctx, seatKey{}, &seat{member: congestion.NewMember()})
}

// seatOf is the seat of a connection, by its context; nil if it has none.
func seatOf(ctx context.Context) *seat {
	s, _ := ctx.Value(seatKey{}).(*seat)
	return s
}

// install is conf with our controller put into the connection that it is used
// for, after the peer has been verified.
func (s *seat) install(tr *quic.Transport, conf *tls.Config) *tls.Config {
	conf = conf.Clone()
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if verify != nil {
			if err := verify(cs); err != nil {
				return err
			}
		}
		s.err = ccslot.Install(tr, seatKey{}, s, s.member)
		return nil
	}
	return conf
}

// serverSeats is conf with a seat for each connection that tr accepts.
func serverSeats(tr *quic.Transport, conf *tls.Config) *tls.Config {
	tr.ConnContext = func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
		return withSeat(ctx), nil
	}
	outer := conf.Clone()
	outer.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := conf
		if conf.GetConfigForClient != nil {
			switch got, err := conf.GetConfigForClient(hello); {
			case err != nil:
				return nil, err
			case got != nil:
				c = got
			}
		}
		if s := seatOf(hello.Context()); s != nil {
			c = s.install(tr, c)
		}
		return c, nil
	}
	return outer
}

// sit makes a connection of the link a member of its path, if it has our
// controller.
func (l *Link) sit(conn conn, p *path, role frame.Role) (*congestion.Member, error) {
	s := seatOf(conn.Context())
	switch {
	case s == nil:
		return nil, l.node.stock
	case s.err != nil:
		return nil, s.err
	case !s.member.Seen():
		return nil, errNotAsked
	}
	class := congestion.Priority
	if role == frame.Bulk {
		class = congestion.Bulk
	}
	s.member.Join(p.model, class, packetOf(conn), wireLen(0, 1, conn.RemoteAddr()))
	return s.member, nil
}

// watch has the reader of the socket wait for the connection when it is busy.
func (m *meter) watch(conn conn) {
	c, ok := conn.(quicConn)
	if !ok {
		return
	}
	q, err := ccslot.QueueOf(c.Conn)
	if err != nil {
		return // the test of ccslot says so; without it, packets may be dropped
	}
	waiting := q.Len
	m.waiting.Store(&waiting)
}

// Names of controllers, for status and metrics.
const (
	nameConfigured = "path model, configured rate"
	nameAutomatic  = "path model, automatic"
	nameMixed      = "path model, configured rate on some paths"
	nameStock      = "newreno x16"
)

// controller names what decides how much the connections may send, and why it
// is not what it should be. The caller holds mu.
func (l *Link) controller() string {
	if why := l.whyStock(); why != nil {
		return nameStock + ": " + why.Error()
	}
	used := l.ways()
	known := 0
	for _, p := range used {
		if p.model.State().Rate > 0 {
			known++
		}
	}
	switch known {
	case 0:
		return nameAutomatic
	case len(used):
		return nameConfigured
	}
	return nameMixed
}

// whyStock is why quic-go's NewReno is in use; nil if it is not. The caller holds mu.
func (l *Link) whyStock() error { return cmp.Or(l.node.stock, l.unseated) }

// stock tells whether NewReno is in use, or the kernel's TCP without BBR: both
// need more connections. The caller holds mu.
func (l *Link) stock() bool {
	if l.set != nil && l.set.via == TCP {
		return !l.set.byBBR()
	}
	return l.whyStock() != nil
}

// lossCount is the packets that a connection has lost and sent. quic-go's own
// counts stand still with our controller.
func (c *carrier) lossCount() (lost, sent uint64) {
	s := c.conn.ConnectionStats()
	if c.member == nil {
		return s.PacketsLost, s.PacketsSent
	}
	n := c.member.Counters()
	return n.Lost - min(n.Spurious, n.Lost), s.PacketsSent
}
