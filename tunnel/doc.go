// Package tunnel carries channels of messages, raw connections and datagrams
// between two gateways over a bad line. It is the door of quic-go.
//
//	Node                 this gateway; one listening port, UDP and TCP
//	└─ Link              one peer; outlives its connections
//	   ├─ set            the connections in use: dialed by one end, each from a socket of its own
//	   │  ├─ priority    control frames, urgent channels, raw connections
//	   │  ├─ datagrams   stretched Layer 2 frames, also as raw connections; membership
//	   │  └─ bulk        4 of them, 4 streams each; up to 16 with NewReno
//	   └─ Channel        messages both ways, in order, across the loss of any connection
//
// # The way of a message
//
//  1. Send waits for the window and keeps the message in the outbox     channel.go, outbox.go
//  2. a free stream takes cells of it, fairly between flows, as caps permit   sched.go, flow.go
//  3. the chunk is written to the stream                                carrier.go:sendData
//  4. quic-go makes packets of it as fast as the path's model says      seat.go, congestion
//  5. the socket waits for the link's cap, urgent first, and counts     socket.go
//  6. at the far end each stream is read without pause                  carrier.go:readData
//  7. cells become messages and messages are put in order               inbox.go:add
//  8. Recv gives them out; Done acknowledges them                       inbox.go, control.go
//     and Recycle takes their memory back                               recycle.go
//
// # Sessions above QUIC
//
// A message stays in its outbox until the receiver has called Done for it. Each
// of its cells is marked with the connection that carries it. When a connection
// is lost, the cells it carried that are not known to have arrived are sent
// again on others. When all are lost, the end that knows an address dials
// again, without end, and both ends tell each other where every channel stands
// (Resume) before data flows; so only what is missing is sent again. A channel
// fails only when the line is away for longer than Patience, when the peer's
// process is a new one, when the peer is removed, or when a side aborts it.
//
// # Packets that are too large
//
// Connections begin with packets that fill an MTU of 1500, or of 1280 where these do not
// pass, and look for what does. When the MTU of a path shrinks later its large packets vanish
// and all else is well; a small ping that is answered time and again between large packets of
// which none is tells it (hole.go), and new connections begin with small ones (mtu.go tries
// large ones again). Simulated with six seeds over round trips of 4 to 150 ms that lose up to
// 5 %, bulk and single messages go on within 4 s; outages, losses and thin lines are not
// taken for it (TestHoleIsFound, TestNoHole). Of a path that carries bulk only it may not be
// seen, since nothing small leaves there: it dies, or full-sized pings tell in 25 s.
//
// # One link, whoever dials
//
// Of two sites the one with the lower name decides which set of connections is
// used: it numbers sets and commits one at a time. The other end follows the
// highest number. So simultaneous dials cannot make the two ends disagree, and
// no set is given up before another one is in use.
//
// # Carriers
//
// A set is of QUIC connections, or of TLS over TCP where UDP is blocked (conn.go
// is what both are, tcp.go and package mux the latter): the same roles, frames,
// channels, raw connections and datagrams. Over TCP the kernel controls
// congestion, by BBR where it has it; losses delay all streams of a connection,
// datagrams too; and what is under way is not counted against the caps when it is
// sent again.
//
// In automatic mode (choose.go) the end that dials uses TCP when QUIC's handshake
// is not answered while TCP's is, twice; it then tries QUIC again after 1, 2, 4 to
// 30 minutes, and a set of QUIC replaces one of TCP as any newer set does. Config
// and Peer can name one carrier, and each end refuses what its own does not permit.
//
// # Paths
//
// A peer may be reached over several ways, such as two uplinks (Path). Each has
// connections of its own and a model of its own, so work stealing gives each as
// much as it delivers. The priority connection is on the cheapest that is alive, and
// goes back to it half a minute after that is up again (cheapest.go).
// A path on which nothing has come for 1.4 seconds although something was asked,
// or for 1.9 when nothing has come on another either, is dead: what its
// connections carried goes over the others, and if the priority connection was on
// it, a new set is dialed over another (path.go). Over TCP it is the kernel that hears, and
// what it hears that counts (tcp_heard.go); elsewhere than on Linux it takes 12 seconds.
// Those that cost more than the cheapest carry no bulk, unless it is down or a
// flow may use all.
//
// The paths of a link end at one gateway at each end. Another gateway of a site can
// lend its uplink: it forwards packets of one of its ports to the gateway that has
// the link, from an address of its own (nftables: dnat and masquerade; the same for
// TCP), and its address is one more path in the peer's config. It can read and
// change nothing, and its death is that of a path (lent_test.go). What is not
// supported is two gateways of a site as ends of one link: what a session has sent
// and received, the journal of its move and the stores are of one process, so
// while one gateway has the link a connection of another is refused (set.go, admit),
// and with its death its sessions end and their moves go back to their source.
//
// # The tail
//
// While a VM stands still (Flow.SetTail) what it waits for is sent again before a
// loss is known: with two paths all of it over the other one as soon as nothing
// new waits, with one path its end over another connection after a quarter of a
// round trip, and what is not acknowledged after 1.25 round trips over yet
// another connection; urgent messages too (again.go has the figures). So neither
// the last packet nor the death of a path is waited for. The far end drops what
// it has, by session, message and cell: State.Copied and Twice count both ends.
// Over TCP with one path and one connection the kernel alone finds a loss.
//
// Urgent messages of up to 1 KiB do not wait for that either while their path loses
// packets: a sixteenth of a round trip after the first a second goes over a bulk
// connection, on another path if there are two (early.go). Simulated over 200 Mbit/s and
// 100 ms with 1 % lost each way, three times, 95 and 99 of 100 exchanges beside bulk take
// up to 101 to 114 and 107 to 166 ms; sent once, 155 to 174 and 213 to 221.
//
// # Classes and rates
//
// The link's cap is kept at the UDP socket in exact bytes on the wire, by
// connection: urgent before datagrams before bulk (package shaper). A flow's
// cap is kept where cells are given to streams: it is charged for what they will
// use on the wire, and five times a second for what they did (account.go), so
// retransmissions count.
//
// Of a flow or a link with a cap of 1 Mbit/s and more, any second is within 5 %
// of it: 3 of them are credit for moments in which nothing could be sent.
//
// # Express
//
// Datagrams that their user seals himself pass beside QUIC, by sockets of their own
// and yet over the same port (express.go). Frames of Layer 2 segments in mode
// secure-fast go this way, 64 KiB in one system call.
//
// # Sockets
//
// Writes are joined by quic-go (UDP_SEGMENT), reads by the kernel (UDP_GRO,
// gro.go). The receive buffer is 64 MiB where that is permitted, and the reader
// waits for a connection that is too busy to take more, because quic-go drops
// silently what exceeds 256 packets. What is lost at our own end all the same
// is counted: State.Drops and Node.Drops.
//
// # Memory that a peer can make us use
//
// Messages: a channel is granted a window out of Config.Memory, 256 KiB at
// first, and new ones share 32 MiB until they know theirs (advance.go); a peer that sends
// beyond that, or beyond Memory and a slack of 96 MiB in all, loses the link. Connections: 18 of 32 MiB each of QUIC's own windows at
// most, and only if it leaves holes in every stream on purpose: our readers
// always drain. Channels 1024, headers 64 KiB, raw connections 2 x 256, datagrams
// 512. A stranger without a certificate gets a handshake, rate-limited by
// address validation, and nothing that is kept; by TCP one of 256 places, of which
// one address gets 64, for at most 4 s.
//
// # Congestion
//
// All connections of a link are members of one model of the path (package
// congestion), which is set into quic-go during the handshake (seat.go, package
// ccslot): bulk is paced by it, the others are charged. Its pace is a little
// below the link's cap, so that the bucket at the socket seldom holds anything
// back. Where quic-go is not as ccslot knows it, it is quic-go's NewReno with 4
// to 16 connections (grow.go); State.Controller says so, and at the other end
// State.FarController (fallback.go).
//
// What that takes of a line, in per cent, over 10 s from cold and over the second
// half of them, and after how many seconds 90 % were reached for the first time
// (bench/results/wan-2026-11-28-rounds.txt, of bench/wan/table on two cores that are
// shared; one run; the line counts Ethernet headers, of which QUIC's packets leave 94.4
// to 95 %, and a line that loses 1 % leaves a hundredth less; x5 and x10: losses come in
// bursts; the peers that are not here are in wan-2026-11-27-idle.txt):
//
//	line                 TCP BBR            automatic          rate configured
//	100M/50ms/0%         92.9 / 95.6, 0.41  93.2 / 94.3, 0.22  94.4 / 94.9, 0.15
//	100M/50ms/0.01%      93.0 / 95.5, 0.55  92.6 / 94.1, 0.22  93.6 / 93.8, 0.17
//	100M/50ms/0.1%       92.3 / 95.2, 0.59  93.0 / 94.5, 0.40  94.1 / 94.5, 0.14
//	100M/50ms/1%         90.3 / 93.5, 0.83  91.0 / 91.6, 0.45  93.0 / 93.6, 0.18
//	100M/50ms/0.1%x5     92.9 / 95.5, 0.41  93.1 / 94.2, 0.23  93.7 / 93.3, 0.15
//	100M/50ms/1%x10      91.4 / 94.3, 0.60  90.5 / 91.6, 0.22  93.2 / 93.8, 0.15
//	500M/100ms/0%        87.5 / 95.5, 1.06  87.7 / 94.7, 0.73  93.6 / 95.2, 0.31
//	500M/100ms/0.01%     82.8 / 95.0, 1.05  86.5 / 94.7, 0.81  93.1 / 94.8, 0.51
//	500M/100ms/0.1%      83.7 / 97.3, 1.51  88.7 / 94.1, 0.80  93.2 / 96.1, 0.39
//	500M/100ms/1%        77.4 / 91.0, 2.12  84.2 / 93.0, 1.73  90.7 / 91.8, 0.52
//	500M/100ms/0.1%x5    84.5 / 94.5, 1.05  85.1 / 93.3, 0.70  92.5 / 96.3, 1.17
//	500M/100ms/1%x10     80.3 / 93.0, 1.63  88.0 / 93.1, 0.79  91.5 / 95.8, 1.48
//	1000M/100ms/0.1%     76.8 / 90.9, 1.50  78.0 / 93.3, 2.28  88.2 / 93.9, 0.97
//	1000M/150ms/0.1%     68.2 / 93.8, 2.84  74.5 / 91.9, 2.94  88.2 / 94.0, 0.90
//
// A message of 200 bytes beside bulk, over 200 Mbit/s, 100 ms and a queue of as much
// takes 107 ms in the median and 113 in the 99th percentile with the rate configured, 104
// and 180 in automatic mode, whose start fills the queue when the processors are late
// (TCP BBR: 232); where 1 % is lost, 116 and 175 in the 99th percentile (259). On an
// idle machine it was 106, and 115 to 121 in automatic mode (urgent-2026-11-27-idle.txt).
//
// Two uplinks of 150 and 50 Mbit/s at 0.1 % carry 184 Mbit/s from cold and 189 in the
// second half, 180 and 187 in automatic mode. When one dies nothing comes for 1.5 to 1.9 s.
// A cap of 50 or 100 Mbit/s is kept within 0.8 % in any second, and no 10 ms carry more than
// 1.5 times as much as others; of 500 Mbit/s, which takes all of the two cores, within 1.9 %
// and 10 ms carry up to 2.8 times as much (0.7 and 1.3 when idle). Without an emulator,
// over a veth, the two cores carry 2.3 to 3.2 Gbit/s without a drop; they are the limit
// at 1 Gbit/s with the emulator beside, too.
package tunnel
