package metrics

import "github.com/longhaul-project/longhaul/gateway"

// peer shows the link to one other site.
func peer(m metrics, p gateway.PeerStatus) {
	m.gauge("link_up", "1 while the link to the site is up.", one(p.Alive), "peer", p.Site)
	m.gauge("link_member_alive", "1 while the membership says that the site is alive.", one(p.Member == "alive"), "peer", p.Site)
	m.gauge("link_changed_time_seconds", "When the link came up or went down, as a Unix time.", float64(p.Since.Unix()), "peer", p.Site)
	m.gauge("link_rtt_seconds", "Smoothed round trip.", p.RTT/1000, "peer", p.Site)
	m.gauge("link_connections", "Connections of the link.", float64(p.Conns), "peer", p.Site)
	m.gauge("link_carrier_info", "Always 1; the label says what carries the link.", 1, "peer", p.Site, "carrier", p.Carrier)
	m.gauge("link_controller_info", "Always 1; the label says which congestion controller runs.", 1, "peer", p.Site, "controller", p.Controller)
	m.gauge("link_rate_bytes_per_second", "Cap of the link, 0 for none.", float64(p.Rate)/8, "peer", p.Site)
	m.gauge("link_goodput_bytes_per_second", "Measured goodput.", float64(p.Goodput)/8, "peer", p.Site)
	m.counter("link_sent_bytes_total", "Bytes sent on the wire, headers included.", p.Sent, "peer", p.Site)
	m.counter("link_received_bytes_total", "Bytes received on the wire, headers included.", p.Received, "peer", p.Site)
	for _, k := range p.Classes {
		m.counter("link_class_sent_bytes_total", "Bytes sent on the wire by class, headers included.", k.Sent, "peer", p.Site, "class", k.Name)
	}
	drops(m, p)
	for _, w := range p.Paths {
		labels := []string{"peer", p.Site, "path", w.Name}
		m.gauge("path_up", "1 while the peer answers on the path.", one(w.Alive), labels...)
		m.gauge("path_rtt_seconds", "Smoothed round trip on the path.", w.RTT/1000, labels...)
		m.gauge("path_bandwidth_bytes_per_second", "What the path is found to carry.", float64(w.Carries)/8, labels...)
		m.counter("path_sent_bytes_total", "Bytes sent over the path, headers included.", w.Sent, labels...)
		m.counter("path_received_bytes_total", "Bytes received over the path, headers included.", w.Received, labels...)
	}
}

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
	m.counter("link_copied_bytes_total", "Bytes sent a second time before a loss was known: what a VM stands still for, and short urgent messages where packets are lost.", p.Copied, "peer", p.Site)
	m.counter("link_twice_bytes_total", "Bytes that came although they were here.", p.Twice, "peer", p.Site)
}

// portDrops shows the same of the listening port.
func portDrops(m metrics, d gateway.PortDrops) {
	m.counter("port_dropped_packets_total", "Packets that found the buffer of the listening socket full.", d.Packets)
	m.counter("port_refused_connections_total", "Connections of strangers that were refused because there were too many.", d.Refused)
}
