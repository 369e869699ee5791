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
// The TAPs carry IFF_VNET_HDR with checksum offload and nothing else: packets
// have their real size (no TSO or GSO frames cross), while senders may still
// use UDP_SEGMENT, which needs a device that takes unfinished checksums
// (quic-go falls back to one packet per call without it).
//
// Lost packets have taken their time on the line, as on a real one. A cut
// loses what is in the queue and in flight. Jitter alone never reorders.
//
// # What it can carry
//
// Measured by `go test -run TestCeiling -ceiling ./bench/wanem`; the figures
// of the build machine are in bench/results/wanem-ceiling.txt. Above its
// ceiling the emulator shows it: LateMax in the counters grows, and the TAP's
// own transmit queue drops.
package wanem
