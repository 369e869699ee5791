package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/tunnel"
)

// openTime bounds the opening of a stream: it waits only while the other gateway
// has not yet noticed the end of earlier ones.
const openTime = time.Second

// OpenStream opens a raw connection beside the datagrams.
func (c *carrier) OpenStream(ctx context.Context, site string) (l2ext.Stream, error) {
	link := c.node.Link(site)
	if link == nil {
		return nil, fmt.Errorf("site %s: %w", site, ErrNoSite)
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	conn, err := link.DialBeside(ctx, ProtoL2)
	if err != nil {
		return nil, fmt.Errorf("opening a stream to %s: %w", site, err)
	}
	return frameStream{conn}, nil
}

// frameStream is a raw connection of which one way is used.
type frameStream struct{ *tunnel.Conn }

// Reset gives both ways up.
func (s frameStream) Reset() {
	s.CancelWrite(0)
	s.CancelRead(0)
}

// Line is what the model of the path knows on which datagrams are sent.
func (c *carrier) Line(site string) l2ext.Line {
	link := c.node.Link(site)
	if link == nil {
		return l2ext.Line{Unknown: "there is no link"}
	}
	s := link.State()
	switch {
	case !s.Up:
		return l2ext.Line{Unknown: "the link is down"}
	case s.Carrier == tunnel.TCP:
		return l2ext.Line{Unknown: "TCP carries the link, and loses nothing"}
	}
	for _, p := range s.Paths {
		if p.Urgent && p.Model.Members > 0 {
			return l2ext.Line{Delivered: p.Model.Delivered, Lost: p.Model.Lost, RTT: p.Model.RTT}
		}
	}
	return l2ext.Line{Unknown: "losses are not known with quic-go's NewReno"}
}

// ServeFrames takes the frames of a raw connection of ProtoL2, until it ends or
// ctx does.
func (l *Layer2) ServeFrames(ctx context.Context, conn *tunnel.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.CancelRead(0) })()
	_ = conn.CloseWrite() // nothing goes that way
	if err := l.m.ServeStream(conn.Site(), conn); err != nil {
		l.log.Debug("frames of a peer", "peer", conn.Site(), "err", err)
	}
}
