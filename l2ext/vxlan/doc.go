// Package vxlan reads and writes the packets that pass between the kernel's
// VXLAN device and the gateway, through the gateway's TUN device.
//
// The kernel wraps each Ethernet frame of a segment in VXLAN (RFC 7348), UDP
// and IPv6, and routes it into the TUN. Its addresses are IPv6 link-local and
// mean nothing outside the TUN: each stands for an Endpoint. Link-local, for
// three reasons: nothing is added to the host's routes and no prefix can
// collide with one in use; a VXLAN device whose remote is link-local takes
// packets from that one device only (vxlan_vs_find_vni in
// drivers/net/vxlan/vxlan_core.c), so that a stranger who sends VXLAN to the
// host's other addresses injects nothing; and a VXLAN device bound to a lower
// device goes away with it, so that a gateway that dies leaves no port behind.
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| 6     | class | flow label                                    |  IPv6
//	| payload length                | 17            | hop limit     |
//	| source: fe80:: and the endpoint in the last 16 bits           |
//	| destination: likewise                                         |
//	+---------------+---------------+---------------+---------------+
//	| source port                   | destination port              |  UDP
//	| length                        | checksum                      |
//	+---------------+---------------+---------------+---------------+
//	| 0x08          | 0                                             |  VXLAN
//	| VNI                                           | 0             |
//	+---------------+---------------+---------------+---------------+
//	| Ethernet frame                                                |
//
// Everything is big endian. The checksum is written as zero, which the device
// is told to accept and to send (RFC 6935): the bytes never leave the machine.
package vxlan
