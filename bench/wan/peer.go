package wan

import (
	"fmt"
	"slices"
	"strings"
)

// A Peer is a way of sending.
type Peer struct {
	Name string
	// Protocol: "tcp", "quic" or "longhaul".
	Protocol string
	// Congestion controller of the kernel, for tcp.
	Congestion string
	// Conns is the number of connections; for longhaul 0 is its own choice.
	Conns int
	// Wireguard: the connections run inside a wireguard-go tunnel.
	Wireguard bool
	// Carrier of the tunnel; "" is its own choice.
	Carrier string
	// Rated: the line's rate is configured.
	Rated bool
}

// Peers are all peers, in the order of the table.
func Peers() []Peer {
	return []Peer{
		{Name: "tcp-cubic", Protocol: "tcp", Congestion: "cubic", Conns: 1},
		{Name: "tcp-bbr", Protocol: "tcp", Congestion: "bbr", Conns: 1},
		{Name: "tcp-cubic-x8", Protocol: "tcp", Congestion: "cubic", Conns: 8},
		{Name: "tcp-bbr-x8", Protocol: "tcp", Congestion: "bbr", Conns: 8},
		{Name: "quic-x1", Protocol: "quic", Conns: 1},
		{Name: "quic-x16", Protocol: "quic", Conns: 16},
		{Name: "wg-cubic", Protocol: "tcp", Congestion: "cubic", Conns: 1, Wireguard: true},
		{Name: "wg-bbr", Protocol: "tcp", Congestion: "bbr", Conns: 1, Wireguard: true},
		{Name: "longhaul", Protocol: "longhaul"},
		{Name: "longhaul-rated", Protocol: "longhaul", Rated: true},
		{Name: "longhaul-tcp", Protocol: "longhaul", Carrier: "tcp"},
	}
}

// SelectPeers finds peers by their names; none picks all.
func SelectPeers(names []string) ([]Peer, error) {
	if len(names) == 0 {
		return Peers(), nil
	}
	var picked []Peer
	for _, name := range names {
		i := slices.IndexFunc(Peers(), func(p Peer) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no peer %q; there are %s", name, strings.Join(peerNames(), ", "))
		}
		picked = append(picked, Peers()[i])
	}
	return picked, nil
}

func peerNames() (names []string) {
	for _, p := range Peers() {
		names = append(names, p.Name)
	}
	return names
}

// runs tells whether the peer has a cell in the row.
func (p Peer) runs(r Row) bool {
	switch r.Kind {
	case Shape:
		return p.Protocol == "longhaul" && !p.Rated && p.Carrier == ""
	case Urgent:
		return !p.Wireguard
	case Paths:
		return p.Protocol == "longhaul" && p.Carrier == ""
	case Cable:
		return !p.Rated // it has no rate
	}
	return true
}

// rate is the cap for the peer in a row, in bytes per second; 0 for none.
func (p Peer) rate(r Row) int64 {
	switch {
	case r.Cap > 0:
		return r.Cap / 8
	case r.Kind != Paths:
		return p.rated(r.Line.Rate)
	}
	return 0
}

// rated is what the peer is told of a line of so many bits per second, in bytes
// per second; 0 for nothing.
func (p Peer) rated(line int64) int64 {
	if !p.Rated {
		return 0
	}
	return line / 8
}
