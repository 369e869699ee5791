package metrics

import "github.com/longhaul-project/longhaul/gateway"

// drops shows what was lost at this gateway and not on the line.
func drops(m metrics, p gateway.PeerStatus) {
	for _, d := range []struct {
		reason string
		n      int64
	}{
		{"send_queue", p.Drops.SendQueue}, {"receive_queue", p.Drops.ReceiveQueue}, {"unsendable", p.Drops.Unsendable},
	} {
		m.counter("link_dropped_datagrams_total", "Datagrams lost at this gateway, by reason.", d.n, "peer", p.Site, "reason", d.reason)
	}
	m.counter("link_dropped_packets_total", "Packets that found the buffer of a socket full with which this gateway dialed.", p.Drops.Socket, "peer", p.Site)
	m.counter("link_busy_reads_total", "Reads that found their connection too busy for too long; of their packets some are lost.", p.Drops.Busy, "peer", p.Site)
	m.counter("link_copied_bytes_total", "Bytes sent a second time before a loss was known, because a VM stands still.", p.Copied, "peer", p.Site)
	m.counter("link_twice_bytes_total", "Bytes that came although they were here.", p.Twice, "peer", p.Site)
}

// portDrops shows the same of the listening port.
func portDrops(m metrics, d gateway.PortDrops) {
	m.counter("port_dropped_packets_total", "Packets that found the buffer of the listening socket full.", d.Packets)
	m.counter("port_refused_connections_total", "Connections of strangers that were refused because there were too many.", d.Refused)
}
