package main

import (
	"context"
	"fmt"
	"net"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/tunnel"
)

// What travels over a link beside channels: datagrams by kind, and raw
// connections by protocol.
const (
	datagramCluster byte = 2 // 1 is gateway.DatagramL2

	protoCluster byte = 1 // membership
	protoPKI     byte = 2 // renewal of certificates, exchange of revocations; 3 is gateway.ProtoL2
)

// onDatagram hands a datagram to the part that it is for.
func (d *daemon) onDatagram(site string, kind byte, b []byte) {
	switch kind {
	case gateway.DatagramL2:
		d.layer2.HandleDatagram(site, b)
	case datagramCluster:
		d.cluster.HandleDatagram(site, b)
	default:
		d.log.Debug("datagram of an unknown kind", "peer", site, "kind", kind)
	}
}

// onExpress hands datagrams that came beside QUIC to the part that seals them.
func (d *daemon) onExpress(b []byte, size int) (site string) { return d.layer2.HandleExpress(b, size) }

// linkChanged tells the parts that live on a link that it came up or went down.
func (d *daemon) linkChanged(site string, up bool) {
	d.layer2.LinkChanged(site, up)
	if up {
		d.cluster.PeerUp(site)
		d.syncWith(site)
		select {
		case d.met <- struct{}{}:
		default: // a look is due already
		}
	}
}

// acceptConns hands the peers' raw connections to the parts that they are for.
func (d *daemon) acceptConns(ctx context.Context) error {
	for {
		conn, err := d.node.AcceptConn(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting connections: %w", err)
		}
		switch conn.Proto() {
		case protoCluster:
			d.cluster.HandleConn(conn.Site(), conn)
		case protoPKI:
			go d.answerPKI(ctx, conn) // ends with the exchange, which is bounded in time
		case gateway.ProtoL2:
			go d.layer2.ServeFrames(ctx, conn) // ends with the connection
		default:
			d.log.Debug("connection of an unknown protocol", "peer", conn.Site(), "kind", conn.Proto())
			conn.Close()
		}
	}
}

// clusterCarrier carries the membership.
type clusterCarrier struct{ node *tunnel.Node }

func (c clusterCarrier) link(site string) (*tunnel.Link, error) {
	l := c.node.Link(site)
	if l == nil {
		return nil, fmt.Errorf("site %s: %w", site, gateway.ErrNoSite)
	}
	return l, nil
}

// SendDatagram implements cluster.Carrier.
func (c clusterCarrier) SendDatagram(site string, b []byte) error {
	l, err := c.link(site)
	if err != nil {
		return err
	}
	return l.SendDatagram(datagramCluster, b)
}

// Dial implements cluster.Carrier.
func (c clusterCarrier) Dial(ctx context.Context, site string) (net.Conn, error) {
	l, err := c.link(site)
	if err != nil {
		return nil, err
	}
	conn, err := l.Dial(ctx, protoCluster)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
