package gateway

import "github.com/longhaul-project/longhaul/tunnel"

// LinkDrops is what was lost at this end of a link and not on the line.
type LinkDrops struct {
	SendQueue    int64 `json:"datagrams_send_queue" doc:"datagrams for which the queue towards the peer was full"`
	ReceiveQueue int64 `json:"datagrams_receive_queue" doc:"datagrams that came faster than they were taken"`
	Unsendable   int64 `json:"datagrams_unsendable" doc:"datagrams for which there was no connection, or that did not fit into its packets"`
	Socket       int64 `json:"packets_socket" doc:"packets that found the buffer of their socket full; those of the listening port are counted for the gateway"`
	Busy         int64 `json:"reads_busy" doc:"reads that found their connection too busy for too long; of their packets some are lost"`
}

// PortDrops is what was lost or refused at the listening port, of all links.
type PortDrops struct {
	Packets int64 `json:"packets" doc:"packets that found the socket's buffer full"`
	Refused int64 `json:"connections" doc:"connections of strangers, refused because there were too many"`
}

func linkDrops(d tunnel.Drops) LinkDrops {
	return LinkDrops{
		SendQueue: d.SendQueue, ReceiveQueue: d.ReceiveQueue, Unsendable: d.Unsendable, Socket: d.Socket, Busy: d.Busy,
	}
}
