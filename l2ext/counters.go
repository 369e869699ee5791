package l2ext

import (
	"fmt"
	"sync/atomic"
)

// Count says what became of a frame or a message.
type Count uint8

// What is counted, for each segment. Those from DropMalformed to DropCarrier
// are frames that were dropped.
const (
	Sent           Count = iota // frames sent to another site, once for each site
	SentBytes                   // bytes of these frames
	Streamed                    // of those sent, frames that went by streams
	Received                    // frames received and delivered here
	ReceivedBytes               // bytes of these frames
	Redirected                  // frames sent on to the site to which their MAC has moved
	Returned                    // frames given back to the LAN: their MAC has come home in the meantime
	Clamped                     // TCP SYNs whose segment size was lowered
	Fragmented                  // frames that were sent in parts
	Conflicts                   // frames from a MAC that is bound to another site
	Fenced                      // claims to a MAC refused because a job has just moved it
	Answered                    // ARP requests and neighbour solicitations answered here for a host elsewhere
	Spared                      // announcements and questions that told other sites nothing new
	Parked                      // frames that waited for a VM that was paused
	Released                    // of these, frames that reached it, here or back at its source
	TooBig                      // senders told that a packet is longer than the segment's MTU
	Refused                     // announcements of other sites refused: garbled, about what is not theirs, or more than can be kept. Of a segment that they do not share, at the first one that they do
	Unsent                      // announcements that found no room in the queue to a site; the next digest mends it
	WayChanges                  // times that another site has told another way in which it carries the segment
	LoopTrips                   // times that the broadcast was shut because of a loop
	Flips                       // moves of a MAC from one site to another
	Gaps                        // moves of VMs away from here whose gap was measured, see Gap; of the segment whose frame ended it
	GapMicros                   // the VMs' silence in these, in microseconds, without the time that the flips were under way
	RouteFailures               // calls of Config.Route that failed or took too long
	CaptureMissed               // frames left out of captures, which were too slow for them
	DropMalformed               // no Ethernet frame, or a bad source
	DropForbidden               // BPDU, LLDP, LACP, pause, CDP
	DropResolve                 // ARP and neighbour discovery over their limit
	DropBroadcast               // other broadcast over its limit
	DropMulticast               // multicast over its limit
	DropUnknown                 // unicast to an unknown MAC over its limit
	DropLocal                   // flooded copies of frames to a host of this site
	DropHorizon                 // received for a host of another site, and not to be sent on
	DropTooLong                 // longer than can be carried
	DropNoSegment               // from a site that is not on the segment
	DropPeerDown                // the site cannot be reached
	DropOwner                   // from a MAC that another site owns
	DropParked                  // for a paused VM, beyond what can wait
	DropPolicy                  // kept at its site by the policy: router advertisements, DHCP, FHRP
	DropShut                    // broadcast, while a loop behind the gateways has shut it
	DropNoListener              // multicast that no other site listens to
	DropMode                    // of a site that carries the segment in another mode, or for it
	DropForged                  // datagrams of mode secure-fast that no peer has sealed; of its first segment
	DropReplayed                // datagrams of that mode that came twice, or too late
	DropPart                    // frames of that mode of which a part was lost
	DropAside                   // of that mode, sent on to where their MAC has gone, or behind what was parked for it: more than waits for the line, or for too long
	DropKernel                  // over a limit, dropped by the kernel before it came to the gateway
	DropStream                  // of a TCP connection, more than its stream takes, or too old
	DropVLAN                    // of a VLAN of the bridge that is not the segment's, or with a tag from another site
	DropCarrier                 // refused by the link or by the kernel
	numCounts
)

// String is the count's name, as it appears in views and metrics.
func (c Count) String() string {
	names := [numCounts]string{"sent", "sent_bytes", "streamed", "received", "received_bytes", "redirected", "returned", "clamped",
		"fragmented", "conflicts", "fenced", "answered", "spared", "parked", "released", "too_big", "refused", "unsent", "way_changes", "loop_trips", "flips", "gaps", "gap_us", "route_failures", "capture_missed", "drop_malformed", "drop_forbidden", "drop_resolve", "drop_broadcast",
		"drop_multicast", "drop_unknown", "drop_local", "drop_horizon", "drop_too_long", "drop_no_segment",
		"drop_peer_down", "drop_owner", "drop_parked", "drop_policy", "drop_shut", "drop_no_listener", "drop_mode", "drop_forged", "drop_replayed", "drop_part", "drop_aside", "drop_kernel", "drop_stream", "drop_vlan", "drop_carrier"}
	if c >= numCounts {
		return fmt.Sprintf("Count(%d)", uint8(c))
	}
	return names[c]
}

// Dropped tells whether c counts frames that were dropped.
func (c Count) Dropped() bool { return c >= DropMalformed && c <= DropCarrier }

// counters of one segment, safe for concurrent use.
type counters [numCounts]atomic.Uint64

func (c *counters) add(what Count, n int) { c[what].Add(uint64(n)) }

func (c *counters) view() map[Count]uint64 {
	m := make(map[Count]uint64, numCounts)
	for i := range c {
		m[Count(i)] = c[i].Load()
	}
	return m
}
