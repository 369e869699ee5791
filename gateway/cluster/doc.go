// Package cluster tells which gateways of the fleet are alive. It runs
// memberlist (SWIM with suspicion) and is its only door; all that memberlist
// sends travels over the links between gateways, so a site opens one UDP port
// and strangers cannot speak: the link is mutual TLS, which is why memberlist's
// own encryption stays off.
//
// What it says informs people and picks candidates. It never decides who owns
// a VM: no rule infers death from silence.
//
// # How memberlist is carried
//
// Packets are datagrams of the link, at most maxPacket bytes, as memberlist
// makes them. Streams are connections of the link on which every message is
//
//	| Len (4) | Message (Len) |   big endian, Len <= 256 KiB
//
// so that it can be judged whole before memberlist sees it: memberlist would
// allocate for a million nodes, or unpack 40 MiB, on the word of the peer.
// check.go refuses compressed, encrypted and user messages, none of which we
// send, and more nodes than maxMembers.
//
// memberlist thinks in IP addresses. A site's is made up from a hash of its
// name and never leaves this package: fd00::/8, port 1. A node's name is
// SITE/GATEWAY.
//
// # States
//
// memberlist tells of joining and leaving only, not of suspicion, and forgets
// the dead. So once per poll it is asked to join its own address: the full
// state that it sends there is caught before it leaves (conn.go), and is
// compared with the table that Members gives. That table keeps the dead.
//
// memberlist does not look for nodes that it has forgotten, and two nodes that
// hold each other for dead stay apart for ever. So every site that is a peer, or
// that has ever spoken to us, and of which nobody is alive is joined again,
// each second at first and each 30 seconds in the end; PeerUp asks for it at
// once. It may take two joins: in the first each side learns that the other
// holds it for dead, and refutes.
//
// # Timing
//
// A silent node is suspect after 2 to 6 seconds and dead 8 seconds later, with up to
// three gateways; with more, 8 to 24, by how many agree. Probes cost
// some 100 bytes per second and peer.
package cluster
