package wan

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// longhaul is the tunnel: one channel, whose messages arrive in order.
type longhaul struct{}

const (
	siteA, siteB = "a", "b"
	// linkTime is for a link to come up on the worst of the lines.
	linkTime = 20 * time.Second
	// linkConns is what a link has at least when it is up: one connection for
	// priority, one for datagrams, four for bulk, or one of TCP.
	linkConns, linkConnsTCP = 6, 3
	// linkConnsPath is what each further path has: those for bulk.
	linkConnsPath = 4
)

// identities makes those of both gateways, in folders named by their sites.
func identities() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "longhaul-bench-wan-"); err != nil {
		return "", err
	}
	if err := pki.Init(filepath.Join(dir, siteA), "bench", siteA, "a1"); err != nil {
		return dir, err
	}
	id, err := pki.Load(filepath.Join(dir, siteA))
	if err != nil {
		return dir, err
	}
	return dir, id.Provision(filepath.Join(dir, siteB), siteB, "b1")
}

func node(c endConfig, listen string) (*tunnel.Node, error) {
	id, err := pki.Load(c.Dir)
	if err != nil {
		return nil, err
	}
	return tunnel.New(tunnel.Config{
		Site: id.Site(), Gateway: id.Gateway(), ServerTLS: id.ServerTLS(), ClientTLS: id.ClientTLS(),
		Listen: listen, Rate: c.Rate, Conns: c.Peer.Conns, Carrier: tunnel.Carrier(c.Peer.Carrier),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

func (longhaul) serve(ctx context.Context, c endConfig, got *tally, ready func()) error {
	listen := c.Addr
	if len(c.Paths) > 0 {
		_, port, err := net.SplitHostPort(c.Addr)
		if err != nil {
			return err
		}
		listen = ":" + port // all lines end here
	}
	n, err := node(c, listen)
	if err != nil {
		return err
	}
	if err := n.SetPeers([]tunnel.Peer{{Site: siteA}}); err != nil {
		return err
	}
	go func() {
		for {
			ch, err := n.Accept(ctx)
			if err != nil {
				return
			}
			go receive(ctx, ch, got)
		}
	}()
	got.drops = func() int64 { return n.Drops().Socket + ownDrops(n.Link(siteA)) }
	ready() // nearly: the other end dials until it is answered
	return n.Run(ctx)
}

// receive serves a channel.
func receive(ctx context.Context, ch *tunnel.Channel, got *tally) {
	for {
		m, err := ch.Recv(ctx)
		if err != nil {
			return
		}
		if ch.Kind() == forPings {
			_, err = ch.Send(ctx, bytes.Clone(m.Data))
		} else {
			got.Add(int64(len(m.Data)))
			tunnel.Recycle(m.Data)
		}
		ch.Done(m.Seq)
		if err != nil {
			return
		}
	}
}

func (longhaul) dial(ctx context.Context, c endConfig) (sender, error) {
	addr, err := netip.ParseAddrPort(c.Addr)
	if err != nil {
		return nil, err
	}
	n, err := node(c, "")
	if err != nil {
		return nil, err
	}
	peer := tunnel.Peer{Site: siteB, Addrs: []string{addr.String()}}
	for _, p := range c.Paths {
		peer.Paths = append(peer.Paths, tunnel.Path{Name: p.Name, Source: p.Source, Addrs: []string{p.Addr}, Rate: p.Rate})
	}
	if err := n.SetPeers([]tunnel.Peer{peer}); err != nil {
		return nil, err
	}
	go func() { _ = n.Run(ctx) }()
	return longhaulSender{n.Link(siteB)}, complete(ctx, n.Link(siteB), len(c.Paths))
}

// complete waits until a link has all its connections, over all paths if there are
// several.
func complete(ctx context.Context, l *tunnel.Link, paths int) error {
	ctx, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	if err := l.WaitUp(ctx); err != nil {
		return fmt.Errorf("%w; %s", err, l.State().Why)
	}
	want := linkConns
	if l.State().Carrier == tunnel.TCP {
		want = linkConnsTCP
	}
	want += linkConnsPath * max(paths-1, 0)
	for l.State().Conns < want {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the link has %d connections: %w", l.State().Conns, ctx.Err())
		case <-time.After(sampleEvery):
		}
	}
	return nil
}

type longhaulSender struct{ link *tunnel.Link }

// drops is what this end has lost itself.
func (s longhaulSender) drops() int64 { return ownDrops(s.link) }

func ownDrops(l *tunnel.Link) int64 {
	d := l.State().Drops
	return d.Datagrams() + d.Socket + d.Busy
}

func (s longhaulSender) bulk(ctx context.Context) error {
	ch, err := s.link.Open(ctx, tunnel.Spec{Kind: forBulk})
	if err != nil {
		return err
	}
	msg := make([]byte, chunkLen) // the tunnel only reads messages: it may have this one many times
	for {
		if _, err := ch.Send(ctx, msg); err != nil {
			return err
		}
	}
}

func (s longhaulSender) echo(ctx context.Context) (io.ReadWriter, error) {
	ch, err := s.link.Open(ctx, tunnel.Spec{Kind: forPings, Class: tunnel.Urgent})
	return &messages{ctx: ctx, ch: ch}, err
}

// messages reads and writes the messages of a channel, which are all of one
// length.
type messages struct {
	ctx context.Context // of the process: io.ReadWriter has no place for it
	ch  *tunnel.Channel
}

func (m *messages) Read(b []byte) (int, error) {
	msg, err := m.ch.Recv(m.ctx)
	if err != nil {
		return 0, err
	}
	m.ch.Done(msg.Seq)
	return copy(b, msg.Data), nil
}

func (m *messages) Write(b []byte) (int, error) {
	_, err := m.ch.Send(m.ctx, b)
	return len(b), err
}
