package layer2

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// gatewayConfig is what a gateway's process is told, on its standard input.
type gatewayConfig struct {
	Dir      string // of its identity
	Listen   string // address of its port; "" for the end that dials
	Peer     string // site of the other
	Address  string // of the other; "" for the end that does not dial
	Underlay netip.Addr
	Segment  gateway.Segment
}

// gatewayReply is a line that it prints each time when it is asked, by a line.
type gatewayReply struct {
	Up      bool   `json:"up"`      // link and segment work
	Problem string `json:"problem"` // of the segment
	Bulk    int64  `json:"bulk"`    // bytes of bulk that have come
	Error   string `json:"error,omitempty"`
}

// kindBulk is the kind of the channels of bulk; all others are the gateway's own.
const kindBulk uint16 = 1000

// ServeGateway is the whole life of a gateway's process: link and segments, as
// longhauld has them, and nothing else. It returns when in ends.
func ServeGateway(in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(in)
	var c gatewayConfig
	if err := lines.Decode(&c); err != nil {
		return fmt.Errorf("reading the config: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g, err := newGateway(c)
	if err != nil {
		return err
	}
	failed := make(chan error, 2) // node and segments
	go func() { failed <- g.node.Run(ctx) }()
	go func() { failed <- g.layer2.Run(ctx) }()
	go g.accept(ctx)
	go g.acceptConns(ctx)
	go g.follow(ctx, c)
	answers := json.NewEncoder(out)
	for {
		var command string
		if err := lines.Decode(&command); err != nil {
			return nil // the bench has ended
		}
		if command == "bulk" {
			go g.send(ctx, c.Peer)
		}
		if err := answers.Encode(g.report(ctx, c, failed)); err != nil {
			return err
		}
	}
}

// benchGateway is one that runs.
type benchGateway struct {
	node   *tunnel.Node
	layer2 *gateway.Layer2
	bulk   atomic.Int64
}

func newGateway(c gatewayConfig) (*benchGateway, error) {
	id, err := pki.Load(c.Dir)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	g := &benchGateway{}
	g.node, err = tunnel.New(tunnel.Config{
		Site: id.Site(), Gateway: id.Gateway(), ServerTLS: id.ServerTLS(), ClientTLS: id.ClientTLS(), Listen: c.Listen, Logger: log,
		OnDatagram: func(site string, kind byte, b []byte) {
			if kind == gateway.DatagramL2 {
				g.layer2.HandleDatagram(site, b)
			}
		},
		OnExpress: func(b []byte, size int) string { return g.layer2.HandleExpress(b, size) },
	})
	if err != nil {
		return nil, err
	}
	p := tunnel.Peer{Site: c.Peer}
	if c.Address != "" {
		p.Addrs = []string{c.Address}
	}
	if err := g.node.SetPeers([]tunnel.Peer{p}); err != nil {
		return nil, err
	}
	host, err := hostnet.New(hostnet.Config{Logger: log})
	if err != nil {
		return nil, err
	}
	g.layer2, err = gateway.NewLayer2(gateway.Layer2Config{Site: id.Site(), Node: g.node, Host: host, Underlay: c.Underlay, Logger: log})
	return g, err
}

// accept serves what the other gateway opens.
func (g *benchGateway) accept(ctx context.Context) {
	for {
		ch, err := g.node.Accept(ctx)
		if err != nil {
			return
		}
		if ch.Kind() == kindBulk {
			go g.receive(ctx, ch)
		} else {
			go g.layer2.Serve(ctx, ch)
		}
	}
}

// acceptConns takes the frames that come by streams: nothing else is opened here.
func (g *benchGateway) acceptConns(ctx context.Context) {
	for {
		conn, err := g.node.AcceptConn(ctx)
		if err != nil {
			return
		}
		go g.layer2.ServeFrames(ctx, conn)
	}
}

func (g *benchGateway) receive(ctx context.Context, ch *tunnel.Channel) {
	for {
		m, err := ch.Recv(ctx)
		if err != nil {
			return
		}
		g.bulk.Add(int64(len(m.Data)))
		ch.Done(m.Seq)
	}
}

// bulkLen is the length of a message of bulk, in bytes.
const bulkLen = 64 << 10

func (g *benchGateway) send(ctx context.Context, peer string) {
	ch, err := g.node.Link(peer).Open(ctx, tunnel.Spec{Kind: kindBulk})
	for msg := make([]byte, bulkLen); err == nil; {
		_, err = ch.Send(ctx, msg)
	}
}

// lookEvery is how often the link is looked at.
const lookEvery = 20 * time.Millisecond

// follow stretches the segment, and tells it of the link.
func (g *benchGateway) follow(ctx context.Context, c gatewayConfig) {
	link, up := g.node.Link(c.Peer), false
	if _, err := g.layer2.AddSegment(ctx, c.Segment); err != nil {
		fmt.Fprintln(os.Stderr, "bench: adding the segment:", err)
		return
	}
	for ctx.Err() == nil {
		if now := link.State().Up; now != up {
			up = now
			g.layer2.LinkChanged(c.Peer, up)
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

func (g *benchGateway) report(ctx context.Context, c gatewayConfig, failed chan error) (r gatewayReply) {
	select {
	case err := <-failed:
		r.Error = fmt.Sprint(err)
	default:
	}
	r.Bulk = g.bulk.Load()
	s, err := g.layer2.Segment(ctx, c.Segment.Name)
	if err != nil {
		return r
	}
	r.Problem = s.Problem
	r.Up = g.node.Link(c.Peer).State().Up && s.Device != "" && s.Problem == ""
	for _, w := range s.Ways {
		r.Up = r.Up && w.Up
	}
	return r
}
