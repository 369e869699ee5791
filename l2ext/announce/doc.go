// Package announce is what two gateways tell each other about the hosts of the
// segments that they share, over the reliable, ordered messages of their link.
//
// Every message begins with
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| 'L'           | '2'           | version (2)   | kind          |
//	+---------------+---------------+---------------+---------------+
//	| VNI of the segment                                            |
//	+---------------+---------------+---------------+---------------+
//
// and goes on by its kind:
//
//	1 Update   | count (2) | records |           who owns which MAC, as far as the sender knows
//	2 Digest   | count (4) | sum (8) |           over all bindings that the sender knows
//	3 Request                                    send me all that you know
//	4 Prepare  | job | site | count (2) | MACs   these are about to move to site, by job
//	5 Clear    | count (2) | MACs                an operator knows these again: forget how often they moved
//	6 Arrived  | job | after (8) | held (4) | lost (4)   the job's VM was heard at its destination
//	8 Key      | key (32) | time (8) | MAC (6)   signs the sender's loop probes from now on (l2ext/probe)
//	9 Loop     | site                            the LAN of site, the sender, is joined with the receiver's, not by us
//	10 Way     | mode | address                  how the sender carries the segment's frames
//	11 Express | root (8) | epoch (8) | index (4) | flags (1)   seal datagrams of mode secure-fast for the sender so (l2ext/fast)
//	12 Able    | abilities (4) |                 what the sender's gateway can do: 1, take frames by streams; 2, take a Trip; 4, take a Cable; 8, take a Frozen
//	13 Members | flags (1) | count (2) | groups  to which multicast the sender's LAN listens, in mode direct
//	14 Over    | job |                           the sender's job has ended, whichever way
//	15 Terms   | count (1) | terms               what all sites of the segment ought to agree on
//	16 Trip    | site | time (4)                 a round trip from the sender to site takes so many microseconds
//	17 Cable   | site | nonce (8)                a Loop, and the receiver's probe that the sender's LAN has brought
//	18 Frozen  | count (2) | MACs                these move too often, and stay where they are for the sender
//
//	record:  | MAC (6) | cause (1) | flags (1) | sequence (8) | site | job | count (1) | addresses |
//	site, job:  | length (1) | bytes |           a site has 1 to 63 bytes, a job 0 to 64
//	term:  | length (1) | name | length (1) | value |     printable ASCII; at most 16 terms, in the order of their names
//	address:  | 4 or 6 (1) | 4 or 16 bytes |     at most 8 of them in a record
//	mode:  | length (1) | bytes |                1 to 15 of a-z and -
//
// The MAC of a Key is that of the sender's bridge, zero while it has none. The time is the sender's clock, in nanoseconds since 1970. A Key is
// sent when the link comes up, as an answer to a Request, and every minute, with a new key.
//
// A Prepare is sent when a move is prepared, and behind the records that answer a Request, or are sent when the link comes up or
// for a Digest, as long as the move is not over: in case it was lost.
//
// A Loop is sent for each probe of the other site that the sender's LAN has brought, and to a site with a
// higher name also for hosts whose frames come from this LAN and from that site in turn. Its site is the sender's. Where nothing else
// shows that the LANs are joined it counts for some minutes of an hour. A Cable counts always, if its nonce is that of a probe
// which the receiver has sent of late: nobody can guess it (l2ext/probe). It is sent to those that have said that they take it.
//
// A Way is sent when the link comes up, when the sender's segments change, with each
// Digest, and as an answer to a Request. Its
// mode is a word, so that a site can name one that it does not know itself. The
// address is where the sender's machine takes frames of mode direct; of other
// modes it is one byte of zero: none.
//
// Abilities are a set of bits; who does not know one takes no notice of it. Able is sent when the link comes up, and again to those
// that have sent one; a gateway that does not know it refuses it and logs that, once for each time that the link comes up.
//
// Members are all that the sender's LAN listens to, in place of what it has said
// before: the MACs of at most 4096 groups. Flags: 1 an IGMP router asks there, 2 an MLD
// router does, 4 there are more groups than these. Others are refused, and so are groups
// that are no IP multicast, or that all hosts of a link hear unasked. It is sent
// when the way is agreed on, when it changes, and every minute.
//
// Terms follow each Way. Their names are those of the segment's config; who does not know one
// takes no notice of it. A gateway that does not know Terms refuses them and logs that.
//
// A Trip tells of the home site of the segment, to those that have said that they take it, with each Digest.
//
// Frozen are all that the sender has frozen, but at most 512, in place of what it has said before. It is sent when they
// change, and while there are any with each Digest, to those that have said that they take it.
//
// An Over is sent by the source of a job to the sites that only watch it, for each segment
// of its MACs, after the records that it has led to. A gateway that does not know it refuses it
// and logs that; it then forgets the job after some time.
//
// An Express is for all segments of the mode that the two share, of which VNI is
// one. The root names the secret, exported from the link's connection, of which
// the epoch's key is derived (fast.Secret.Name); epochs of a sender grow. Flags: 1 the sender's kernel
// takes UDP that is not cut to packets yet. Others are refused.
//
// Big endian. Nothing may follow. A message of another version or kind, a
// record for a MAC that no host can have, and a number over its limit are
// refused as a whole.
//
// Flags: 1 router (the host has said so in a neighbour advertisement: who answers
// for it must say so, too, or hosts drop it as their router; RFC 4861, section
// 7.2.5). Others are refused.
//
// Of Arrived, after is the time from the flip's arrival at the destination to
// the first frame of the VM there, in nanoseconds; held are frames that waited
// for the VM and reached it, lost those that did not fit.
//
// Causes: 1 learned (seen by the owner's data path), 2 moved (ordered by a
// job), 3 withdrawn (the owner forgets it; other sites do, too).
//
// The digest is the sum, modulo 2^64, of the first eight bytes of the SHA-256
// of each record that is not withdrawn. Two gateways whose digests differ send
// each other all that they know.
//
// Version 1 had no flags, and no kinds above 4.
package announce
