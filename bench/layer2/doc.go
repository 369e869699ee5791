// Package layer2 measures what a stretched segment carries in each of the ways in
// which its frames can cross: plain VXLAN of the kernel, VXLAN inside a
// wireguard-go tunnel, and the modes of our own segments. All run on namespaces of
// the same make, one after the other:
//
//	host A ── bridge, gateway A ══ line ══ gateway B, bridge ── host B
//
// The line is a virtual cable, which has no limit, or one emulated by
// [github.com/longhaul-project/longhaul/bench/wanem]. TCP runs between the hosts, for
// which the segment is their LAN.
//
//	go build -C bench/wan/wireguard -o $PWD/bin/bench-wireguard .
//	go run ./bench/layer2/table -wireguard bin/bench-wireguard
//
// or `make bench-layer2-modes`, which writes bench/results. It needs root.
//
// # What the columns mean
//
//	goodput   bytes that the receiving application has, over the time
//	of vxlan  the same as a share of plain VXLAN's in the same row of this run
//	cpu       seconds of processor for each Gbit delivered: gateway, what the
//	          processes of both gateways have used; machine, what everything on this
//	          machine has, the two ends of the TCP connection, the emulator and the
//	          kernel's own work included, and so whatever else runs
//
// # A storm
//
// With -storm a guest at A broadcasts a million frames a second, or as many as one
// processor can, while a bulk channel of the link sends from A to B over an emulated
// line, as a migration does: the goodput of that with and without the storm, and how
// many frames a second the guest has sent.
package layer2
