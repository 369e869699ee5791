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
// With -storm a million broadcasts a second come into a bridge, or as many as two
// threads can make, while a bulk channel of the link sends from A to B over an emulated
// line, as a migration does. The kernel makes them where a guest's would come in, so
// that no guest has to be paid for; that costs a quarter of a microsecond for each, and is
// the same in all parts. Four parts take turns: no storm, one on a bridge that no gateway
// knows, one on such a bridge with one guest more, and one on the segment's bridge at A.
// What a storm takes from a machine of few processors the second shows; what is lost
// beyond it, between the second and the last, is what the segment adds, and the third
// what a guest in its place would.
//
//	frames/s   what the bridge has taken
//	ns each    of processor, of the storm's threads: making a frame, and all that the
//	           kernel does with it until it is dropped
//	crossed/s  frames that have come to host B
//	Mbit/s     of bulk that has arrived, and as a share of that without a storm
package layer2
