// Package l2ext stretches Layer 2 segments between sites, so that a VM that
// moves keeps its MAC, its IP and its connections.
//
// A frame from a host here to a host at another site, secure mode:
//
//  1. bridge    the segment's bridge sends it to the port lhvx<VNI>, a kernel VXLAN device      hostnet
//  2. carrier   the kernel wraps it and routes it into our TUN device                            l2ext/vxlan
//  3. judge     is its source ours? a question that has its answer here?                         owner.go, answer.go
//     never-carry list, limits of broadcasts, TCP's segment size                       outward.go
//  4. choose    the site that the binding of its destination names, or all of them               outward.go
//  5. send      as one datagram of the link, or in parts                                         l2ext/frag
//     TCP, where the line loses packets: by one of 32 reliable streams                          lanes.go, l2ext/stream
//  6. rejoin    at the other site: whole again, judged again                                     inward.go
//  7. deliver   wrapped anew into the TUN, so that it enters the bridge by the port               inward.go
//
// In mode secure-fast (mode.go) steps 1, 2, 5 and 6 are others: the port is a TAP
// that gives frames before the kernel cuts them to segments (parcel.go), and they
// are sealed into datagrams beside the link and opened again by express_out.go,
// express_in.go and l2ext/fast, with the keys of express_keys.go; express.go finds out
// whether they arrive. What is between is the same, but that frames which are sent on
// or go back wait for their turn aside (express_aside.go).
//
// A segment may be one VLAN of its bridge, at each site another one (vlan.go): its frames
// have a tag in the LAN, which the gateway takes off between steps 2 and 3 and puts on in
// step 7, and none between the sites. Several segments may share a bridge then.
//
// In mode Direct the kernel carries the frames instead, from site to site over a
// private network, and the gateway does the rest: it programs the entries, asks
// all the time whether full frames come back (ways.go), and takes the frames for VMs
// that are paused here (direct.go). Sites that carry a segment in different modes
// exchange nothing of it.
//
// A binding says which site owns a MAC, see bindings.go: a pure table with a
// sequence number for each MAC. Each site announces the bindings of its own
// hosts (l2ext/announce) and makes those of the others static entries of its
// kernel's forwarding databases. The kernel never learns from the overlay.
//
// A move takes its MACs along, see jobs.go: Prepare, at the source's STOP Flip,
// at the destination's RESUME Settle, then Confirm; or Revoke. From the flip on
// the old site sends what still reaches it on to the new one, for MoveGrace, and
// there frames for the VM wait until it runs, or follow it back (park.go). The
// port behind which it waits gets no broadcasts meanwhile (expect.go). The
// triggers back each other up: should the flip be lost, the RARP of the
// hypervisor, the first frame of the VM, Settle or Confirm does the same, later.
// A VM that somebody pauses for a while stops as well: when it runs again at its source the
// job is revoked and prepared anew. What is lost of a job while a link is cut the other sites make up for by
// what comes later (follow.go).
//
// A MAC has one owner. Its frames are carried from there only, so that a VM that
// was started twice reaches nobody but its own LAN; a MAC that two sites claim in
// turn stays where a job has left it (owner.go). Addresses belong to MACs
// (addresses.go): who asks for one of another site's host gets the answer here,
// and what all sites know already does not cross, but for the objection to one who wants
// an address that is another's (answer.go).
//
// One goroutine, Run, changes bindings and programs the kernel. Frames pass in
// others, which only read: the readers of the TUN and of ports in mode secure-fast,
// and the callers of HandleDatagram and HandleExpress.
//
// The way of the code: segment.go has the words and the two interfaces, mode.go the modes,
// manager.go the loop, apply.go the wished state, state.go what is known of a
// segment, outward.go and inward.go the frames, peers.go and urgent.go the
// announcements, bindings.go the rules, jobs.go the moves, follow.go those of other sites, report.go what the
// network saw of them, view.go what an operator sees, log.go how often what others cause is
// logged.
//
// Storms and loops: what is not for one known host is limited by the kernel for
// each LAN port (hostnet) and here for each segment (limits.go); a policy says
// what crosses at all (policy.go), and multicast goes where somebody listens
// (members.go; in mode Direct listeners.go). Probes find LANs that are joined behind the gateways' backs; one
// of the two gateways then shuts its broadcast (loop.go, l2ext/probe), and neither takes a
// host of another site for one of its own LAN (restore.go), nor gives up one of its own to
// a gateway that starts meanwhile (keep.go). Who sends packets that are too long is told so
// (toobig.go).
//
// TCP connections of hosts leave the datagrams for streams while the line loses
// packets (streams.go; line.go measures, lanes.go sends): each is on one of 32, so
// that what the line loses holds up few for a round trip. What waits is bounded
// and short, and is dropped where the line takes no more, so that the hosts' TCP
// finds its pace. A stream dies with its connection, and one that takes nothing
// for a second is given up: after an outage no old frame is delivered, but those
// of at most a few seconds that the link has outlived. Datagrams are also
// the way to gateways that have not announced that they take streams.
//
// For operators: where guests' traffic enters and leaves, and for whom a segment
// is still stretched (home.go), what that costs at a third site (trips.go), routes to guests (hostroutes.go, routerun.go), which sites do not have it, or cannot be asked (absent.go), at which site a MAC is frozen (freeze.go), what the kernel goes on
// carrying after a crash (adopt.go), what passes
// (capture.go, l2ext/pcap), and whether full frames come back from another site (echo.go).
//
// Limits: one gateway for each site (a second one on its LAN is only told of). A host that
// is new while two LANs are joined may be bound to either of the two sites. Of a
// VM on another host than the gateway the bridge hears only what comes its way,
// and so does the silence that a job reports. A twin still confuses its own LAN.
//
// Of VLANs: a segment without one that has its bridge to itself carries frames with a
// tag as they are, and learns MACs from them only; on a bridge that filters VLANs the
// hosts of all of them are taken for its own. In a segment with a VLAN, or on a shared
// bridge, frames with a tag of another VLAN, with two tags or with a provider's (802.1ad)
// are dropped, and counted as drop_vlan; one with only a priority counts as untagged. What
// a tag says of priority does not cross. A plain bridge has one entry for a MAC and does
// not tell in which VLAN it has learned it: a MAC that is in several VLANs of it must be at
// one site in all of them; hosts are found by ARP, RARP, neighbour discovery and DHCP in
// their VLAN and by what they send to other sites, and what the bridge has learned only
// keeps them known; and the RARP with which QEMU announces a VM whose port is a trunk has
// no tag, and tells nothing. LAN ports that are isolated themselves reach no segment
// of a shared bridge. Mode Direct takes no VLANs, and all segments of a bridge have one mode.
//
// A host whose MAC begins with 0a:4c:48 or 0e:4c, which are those of gateways, is
// never bound to a site.
//
// Of mode Direct: what other sites send is believed by the address of their machine
// only; whether an address is free is asked in a LAN of its own hosts only, as the kernel keeps such
// questions there (net/bridge/br_arp_nd_proxy.c); multicast goes to all sites unless the policy says listeners, and then to
// all for the first minutes, and a group to a new site some two seconds after the
// first host there joins; a burst of what is still under way when a VM has left is
// sent on by the kernel, for MoveGrace.
//
// Nothing here knows how frames reach the other site (Carrier) nor how a
// machine's network is changed (Host).
package l2ext
