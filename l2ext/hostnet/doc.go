// Package hostnet is l2ext's Host on Linux, and the only part of the product
// that knows netlink.
//
// What it makes, all of it marked by an interface alias that begins with
// "longhaul:", is
//
//	lhtun0      TUN device, the carrier, while the gateway has a segment
//	lhvx<VNI>   VXLAN device over lhtun0 and port of the segment's bridge; learning off,
//	            one static entry for each host at another site: in the bridge's forwarding
//	            database (static, sticky) and in its own (with the endpoint of the site)
//	            In mode secure-fast it is a TAP with virtio headers and offloads, and only
//	            the bridge has entries (fast_linux.go)
//	the bridge  only if there was none of that name
//
// and of a segment in mode direct, in which lhvx<VNI> is only the gateway's own plug in
// the bridge, into which nothing is flooded:
//
//	lhdx<VNI>   VXLAN device over the underlay and port of the bridge; entries as above, with the
//	            addresses of the other sites' machines, one for each site for frames that are for all, and
//	            one for each site that listens to a multicast group
//	neighbours  of the bridge, with the protocol number 76, for which the bridge answers itself; on
//	            a bridge with IPv6 switched off only those of IPv4
//	tables      of nftables that do what the gateway does in mode secure (guard_linux.go, policy_linux.go)
//
// An adopted bridge gets one port more (in mode direct, two) and is not changed otherwise. For that,
// the port has a MAC that begins with fe:ff, which is never the lowest (a bridge
// without a MAC of its own takes the lowest of its ports; if there are none, its
// present MAC is set to stay), and an MTU that is not below that of the bridge
// (which would follow it).
//
// Where several segments share a bridge, our ports are isolated from each other, and the
// rules that limit broadcasts drop those of other VLANs first. On a bridge that filters VLANs
// the port of a segment with a VLAN is a tagged member of that one only (vlan_linux.go). That
// part runs in tests against a stand-in, as the kernels on which they run have no such bridges.
//
// The port of a VM that is about to come gets no broadcasts until it runs (Mute).
// That is a change of somebody else's port; it has the mark as its alias as long
// as it lasts, and is undone by Unmute, by Close, by the next gateway's first
// Apply and by Cleanup.
//
// Hosts are found by the bridges' forwarding databases, and by what they say on
// the LAN ports, which one packet socket hears (snoop_linux.go).
//
// When the gateway dies, the kernel removes the TUN with the last descriptor of
// it, and with the TUN the VXLAN devices bound to it, and with these their
// entries: nothing is left that could swallow frames. Only a bridge made here
// stays, as VMs are plugged into it; the next gateway takes it up by its mark.
// Cleanup removes it when nothing else is plugged in. In mode direct lhdx<VNI>, its
// entries and the tables stay, and the kernel goes on carrying frames; the next
// gateway takes them up, and lets those of each site be until that has told all that it knows
// (adopt_linux.go). Cleanup removes them.
//
// The kernel must have IPv6 (not ipv6.disable=1), and a firewall that drops
// what it does not know must let UDP port 14789 in from lhtun0.
package hostnet
