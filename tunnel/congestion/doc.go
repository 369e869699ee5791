// Package congestion decides how much may be sent on a path: all QUIC
// connections between this gateway and one address of a peer. It is told the
// time, knows no sockets and starts no goroutines. How it gets into quic-go is
// told in package ccslot below it.
//
//	Path            one model, one pacing budget
//	├─ model        what the line has, and what we do about it   model.go, rounds.go
//	├─ budget       what may leave now                            budget.go
//	├─ large        whether large packets vanish                  large.go
//	└─ Member       one connection, as quic-go asks and tells it  member.go
//
// # Why not per connection
//
// N controllers on one line compete: each probes, each fills the queue for
// itself, and the urgent connection waits behind the bulk of its own siblings.
// One model sees what all have delivered, and one budget paces them together. A
// Priority member is charged and does not wait: it goes ahead of all bulk that
// has not left yet, and what it uses bulk leaves free.
//
// # The model
//
// Rates are bytes per second on the wire, with all headers, as operators count
// and as package shaper does. Equations and names are those of BBR
// (draft-ietf-ccwg-bbr; delivery rate: its section 4.5, formerly
// draft-cheng-iccrg-delivery-rate-estimation), with the differences below.
//
//	rate of a sample    (delivered now - delivered when the packet was sent)
//	                    / max(time to send those, time to acknowledge those)
//	bandwidth           the largest sample of the last 10 rounds; samples of a
//	                    sender with too little to send count if they are larger
//	RTT                 the smallest of the last 10 s
//	BDP                 bandwidth x RTT
//	pace                gain x bandwidth / (1 - usual loss / 2)
//	window              2 x BDP + 10 ms x bandwidth
//	round               until a packet is acknowledged that was sent after the
//	                    acknowledgement that ended the last one; at least 10 ms
//
//	phase     gain    until
//	startup   2.885   trains tell the rate and it is reached, a queue begins, loss of
//	                  10 %, of 20 without trains, or three rounds without growth; 4
//	                  while trains tell more
//	drain     0.5     what is in flight fits into the BDP
//	cruise    1, 0.9  0.9 while a queue stands
//	probe     1.1     a round; 1.25 when the last one found more, or among rivals
//	await     1       a round later: 5 % more? probe again, after two: startup
//	settle    0.5     no RTT near the minimum for 10 s: until that is seen anew
//
// # Trains
//
// Who doubles until he sees a queue sends twice the line's rate for a round trip
// and more: the queue of a BDP was full, and all that is urgent stood in it. So
// startup sends trains: what its pace gives in an eighth of a round trip leaves at
// once. The line stretches a train of n bytes to n / rate, which the
// acknowledgements show:
//
//	rate of a train     bytes acknowledged after those that were with its first packet
//	                    / time from then to the last acknowledgement; without those that
//	                    come 4 times as late as the others, which receivers hold back;
//	                    of one that came within 2 ms, all after the first packet / 2 ms
//	limit               the median of the last 8 that were stretched by half at least,
//	                    once there are 3, and while none came faster
//	pace                the limit, once it is 4 times the bandwidth or less: the
//	                    trains end
//	gain                4, window 3 BDP, while limit or trains that were not
//	                    stretched tell of 4 times the bandwidth
//
// (Packet dispersion: Dovrolis, Ramanathan, Moore, IEEE/ACM ToN 12(6), 2004; paced
// chirping: Misund, Briscoe, 2019.) The limit only ever keeps startup from what it
// would do without, and a first look for more follows at once; so where it is wrong,
// because a processor was late or a policer lets bursts pass, startup ends by the
// queue, by loss or by the next probes as before. Once loss has ended one there are no
// more trains: a policer or a short queue may drop their ends. Simulated at 200 Mbit/s,
// 100 ms and a queue of as much, that fills without trains and stays below 22 ms with
// them (TestStartupQueue). Shorter lines than 20 ms have no trains.
//
// A startup that begins because two probes in a row have found more goes on at
// 1.25 times the rate for two round trips, in trains: they tell what there is before it
// is sent. Loss ends one from 10 % of a round on, and of trains most must have lost some:
// bursts of losses of the line hit one here and there. While trains come through at 4
// times the rate, fewer than 64 packets are no congestion. Simulated with 200 seeds, no
// start fills the queue at 200 Mbit/s with 1 % of loss, nor at 500 with losses in bursts
// of ten. At 100 Mbit/s and 50 ms 4 of 200 do with such bursts: where a first window
// loses a third, startup ends and the next has no trains. TestStarts has many lines
// (bench/results/starts-2026-11-27.txt).
//
// # A queue
//
// A queue stands when the *smallest* RTT of a whole round, of at least 8
// packets, exceeds the minimum by a tenth and 4 ms. Busy processors delay some
// packets of a round; a queue delays all. What arrives counts only if we have
// sent as much as we might: a sender without a processor learns nothing of the
// line. On a thin line a round lasts until it has 16 packets, 250 ms at most; when
// those of all connections come so rarely that each acknowledgement may be held
// back (max_ack_delay), so much more is no queue; and the average of a round of so
// few counts as a sample, since single ones miss what is acknowledged together.
// With a queue the pace is trimmed. If the
// queue stays although we send less, and less arrives than we think there is,
// the line has become slower: what arrives is the new bandwidth. If it stays
// although we get what we think is ours, others keep it full: for 5 s we
// neither trim nor believe the RTT and take our share as BBR does, bounded by
// the window. Measured in simulation (TestFairness), beside one CUBIC flow for
// a minute and queues of 0.2 to 2 BDP: 0.5 to 1.6 times a fair share.
//
// # Loss
//
// Long lines lose packets for reasons that are not congestion. Below 5 % in a
// round loss changes nothing. Above, with a queue or in two rounds in a row, or
// at once from 15 %: the bandwidth becomes what arrives, but no less than 0.7 of
// what it was (CUBIC's and BBRv3's beta), and what was lost on the way there
// does not count again. When sending a third less has not made the losses fewer
// and no queue is there, they are the line's own and put up with for 30 s, up
// to 30 %. ECN marks count as a queue.
//
// # A configured rate
//
// It is taken for what the line carries: pace 0.995 of it from the first packet
// on, 0.999 after 20 rounds without a queue; no startup, no probes, a queue only
// by accident. The line may still turn out not to have it: then congestion, or a
// queue that trimming does not move, makes the model find out by itself, never
// beyond the rate, until a probe reaches it again. Unless that has happened pacing
// alone is enough, and 200 ms more are let in flight for receivers that
// acknowledge late.
//
// # The budget
//
// A stall of up to 30 ms is made up for at 1.25 times the pace; once a queue is
// seen, or after 40 ms without bulk (in trains: three times as long as it waits for
// one), of 5 ms: what makes up for no stall stands in the queue of a line that has no
// more than the pace. The same holds in the first 250 ms after that while nothing
// waits: a channel may send some in advance, and more once the peer has answered.
// Bulk that has found the budget empty waits for a burst of half a millisecond,
// which is one write. Acknowledgements cannot wait; with a configured rate they
// are charged.
package congestion
