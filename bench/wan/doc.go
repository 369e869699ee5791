// Package wan measures how much of a long line each way of sending takes: the
// kernel's TCP, stock quic-go, wireguard-go and Longhaul's tunnel, one after the
// other on the same emulated line ([wanem]).
//
//	go build -C bench/wan/wireguard -o $PWD/bin/bench-wireguard .
//	go run ./bench/wan/table -wireguard bin/bench-wireguard -rows 100M -peers tcp-bbr,longhaul
//
// or `make bench-wan`, which writes bench/results. It needs root, for network
// namespaces.
//
// # A cell
//
// Each cell of the table has a line, two namespaces and processes of its own, so
// that nothing is warm but what the peer itself warms up:
//
//	 table (run.go) ─── JSON lines over pipes ───┐
//	   │                                         │
//	sender process ── namespace a ══ wanem ══ namespace b ── receiver process
//	(end.go)             (child of SCHED_FIFO)               (end.go)
//
// Connections are made first and left alone for settle, so that handshakes and
// the discovery of the path's MTU are over, as on a link that has been up for
// long; congestion controllers are still cold. Then the sender sends all it can
// for the time of the cell.
//
// # What the columns mean
//
//	goodput   bytes that the receiving application has, in order, as a share of
//	          the line's rate from the first moment on. The line counts Ethernet
//	          headers: TCP can reach 95.7 %, QUIC about 94 %
//	steady    the same over the second half of the time
//	t90       when 100 ms first brought 90 % of what the line carries
//	wasted    packets that did not arrive, as a share of the bytes that were sent;
//	          the line's own loss is in it
//	overflow  the part of it that found the queue full
//	wire      bytes sent on the line for each byte that was delivered; headers,
//	          retransmissions and acknowledgements of the peer included
//	cpu       seconds of processor for each Gbit delivered, user and system, of the
//	          sending and the receiving process. The kernel does part of the work of
//	          receiving in the emulator's time
//	queue     the longest queue before the bottleneck, as time
//	ping      round trips of 200 bytes every 20 ms during all that; 1 s at the end
//	          is only waited for. What never came back counts with its age
//	10ms      the busiest 10 ms on the line, over the mean
//	stall     the longest time in which nothing arrived, where two paths are used; in
//	          their rows shares are of both lines, also when one dies in the middle
//	own drops packets and datagrams that Longhaul's ends have lost themselves, on a
//	          cable: there the processors are the limit, and shares mean nothing
//	1s        the least and the most of any second on the line, against the cap
package wan
