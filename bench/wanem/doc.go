// Package wanem emulates a WAN between two TAP devices in user space: rate,
// one-way delay, jitter, random and burst loss, reordering, duplication, a
// finite drop-tail queue, cut and heal. Everything can be changed while it
// runs, and every packet is counted with its Ethernet header, in all and by
// flow.
//
// A frame's way through one direction:
//
//	TAP ──► cut? ──► queue ──► rate ──► lost? ──► delay, jitter ──► TAP
//	         │         │                  │        │      │
//	         ▼         ▼ full             ▼        ▼      └ late by ReorderBy
//	       dropped  dropped            dropped   twice
//
// A [Line] is that picture: pure, told the time, exact and repeatable from its
// seed. A [WAN] is the shell: one locked OS thread for each direction that
// reads, waits and writes, under SCHED_FIFO where the kernel permits it, so
// that guests that keep all cores busy do not bend the line.
//
// The TAPs carry IFF_VNET_HDR with checksum offload, and UDP of many packets as
// one message (segments.go), as network cards do: a write of UDP_SEGMENT comes as
// one, and packets of a flow that are due in one round are delivered as one, which
// the receiver's UDP_GRO keeps together. On the line each is a packet of its own, with
// its real size. TCP comes and goes packet by packet.
//
// Lost packets have taken their time on the line, as on a real one. A cut
// loses what is in the queue and in flight. Jitter alone never reorders.
//
// # What it can carry
//
// 2 Gbit/s of full frames of UDP in one direction with two fifths of a core, 9.5
// Gbit/s and 790 000 packets a second at the most; at 500 Mbit/s a third of a
// core, the rate exact and frames late by 0.01 to 0.1 ms on average. A busy line
// delivers in rounds of a hundredth of its delay, 0.15 ms at least and 0.5 at the
// most: a frame may come so much early, never more. On a machine that others
// overload, single frames are late by tens of milliseconds; LateMax in the counters tells.
//
// Measured by `go test -run Ceiling ./bench/wanem -ceiling`; the figures of
// the build machine are in bench/results/wanem-ceiling.txt.
package wanem
