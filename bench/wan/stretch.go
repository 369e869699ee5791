package wan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
	"github.com/longhaul-project/longhaul/tunnel"
)

// stretched is a pair of gateways with one segment between them, on whose bridges
// the ends of a cell have their addresses. It is used for what it carries, and
// sends nothing by itself.
type stretched struct{}

// The segment of a cell.
const (
	stretchBridge = "brcell"
	stretchName   = "cell"
	stretchVNI    = 81
)

func (stretched) serve(ctx context.Context, c endConfig, _ *atomic.Int64, ready func()) error {
	n, err := newStretch(c, c.Addr)
	if err != nil {
		return err
	}
	if err := n.SetPeers([]tunnel.Peer{{Site: siteA}}); err != nil {
		return err
	}
	failed := n.start(ctx)
	if err := n.stretch(ctx, siteA, c.Peer.Stretch); err != nil {
		return err
	}
	ready()
	return <-failed
}

func (stretched) dial(ctx context.Context, c endConfig) (sender, error) {
	n, err := newStretch(c, "")
	if err != nil {
		return nil, err
	}
	if err := n.SetPeers([]tunnel.Peer{{Site: siteB, Addrs: []string{c.Addr}}}); err != nil {
		return nil, err
	}
	n.start(ctx)
	if err := n.stretch(ctx, siteB, c.Peer.Stretch); err != nil {
		return nil, err
	}
	return stretched{}, complete(ctx, n.Link(siteB), 1)
}

func (stretched) bulk(context.Context) error { return errors.ErrUnsupported }

func (stretched) echo(context.Context) (io.ReadWriter, error) { return nil, errors.ErrUnsupported }

// A stretch is a gateway's end of its link and of its segments.
type stretch struct {
	*tunnel.Node
	l2 *gateway.Layer2
}

func newStretch(c endConfig, listen string) (s stretch, err error) {
	host, err := hostnet.New(hostnet.Config{})
	if err != nil {
		return s, err
	}
	var l2 atomic.Pointer[gateway.Layer2] // made of the node, which calls it
	s.Node, err = nodeOf(c, listen, func(site string, kind byte, b []byte) {
		if l := l2.Load(); l != nil && kind == gateway.DatagramL2 {
			l.HandleDatagram(site, b)
		}
	})
	if err != nil {
		return s, err
	}
	s.l2, err = gateway.NewLayer2(gateway.Layer2Config{Site: s.site(c), Node: s.Node, Host: host})
	l2.Store(s.l2)
	return s, err
}

func (s stretch) site(c endConfig) string {
	if c.Sends {
		return siteA
	}
	return siteB
}

// start runs all until ctx ends; what goes wrong is sent.
func (s stretch) start(ctx context.Context) <-chan error {
	failed := make(chan error, 2) // one each
	go func() { failed <- s.Run(ctx) }()
	go func() { failed <- s.l2.Run(ctx) }()
	go func() {
		for {
			ch, err := s.Accept(ctx)
			if err != nil {
				return
			}
			go s.l2.Serve(ctx, ch)
		}
	}()
	go func() {
		for {
			conn, err := s.AcceptConn(ctx)
			if err != nil {
				return
			}
			go s.l2.ServeFrames(ctx, conn)
		}
	}()
	for _, l := range s.Links() {
		go s.watch(ctx, l)
	}
	return failed
}

// watch tells the segments how the link is.
func (s stretch) watch(ctx context.Context, l *tunnel.Link) {
	for was := false; ; {
		st, changed := l.Watch()
		if st.Up != was {
			was = st.Up
			s.l2.LinkChanged(l.Site(), was)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (s stretch) stretch(ctx context.Context, to, streams string) error {
	got, err := s.l2.AddSegment(ctx, gateway.Segment{
		Name: stretchName, VNI: stretchVNI, Bridge: stretchBridge, MTU: l2ext.DefaultMTU, Sites: []string{to},
		Policy: gateway.SegmentPolicy{Streams: streams},
	})
	if err == nil && got.Problem != "" {
		err = errors.New(got.Problem)
	}
	if err != nil {
		return fmt.Errorf("stretching a segment: %w", err)
	}
	return nil
}
