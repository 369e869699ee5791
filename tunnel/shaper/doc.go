// Package shaper keeps what is sent within a rate. A Core decides, told the
// time; a Bucket is its blocking shell.
//
// Two budgets are reckoned in bytes. The long one fills at the rate and holds
// Credit of it: so much of a stall of the scheduler is made up for afterwards.
// The short one fills at 1.25 times the rate and holds peakCredit: it keeps
// the making up from becoming a burst. Both must be free of debt before bytes
// may leave, and then the whole of them is charged at once, so one request may
// be larger than either budget: it leaves a debt that the next one waits for.
//
// In any window of time T, no more leaves than
//
//	rate*(T + Credit + urgentCredit) + the last two requests
//
// and, while there is something to send and no stall exceeds Credit, no less
// than rate*(T - Credit) - one request. Over one second that is within 5 % if
// requests keep to Quantum, 2 ms of the rate. Below 6 Mbit/s a single packet
// is more than that, and the error grows by what a packet is of a second.
//
// Of any 10 ms no more leaves than 1.3 times the rate and one request. With Quantum
// that makes 1.5 from 6 Mbit/s on; below, a request is one packet and more than 2 ms:
// at 2 Mbit/s three packets leave, 1.8 times the rate. What left in the last 10 ms is
// remembered by milliseconds (recent.go). A smaller short budget would do the same and
// lose what timers are late by.
//
// Why these figures: on a loaded two-core machine a budget of 2 ms lost 16 %
// of the rate, since every longer stall is lost; 20 ms lost 0.03 %. Unlimited
// making up gave peaks of 3.7 to 12.6 times the rate over 10 ms, the two budgets
// alone 1.9. This package, on such a machine under a load of 10: 2, 20, 200 and
// 2000 Mbit/s within 0.8, 0.5, 2.2 and 0.5 % over any second.
//
// A Calendar says which rate holds when; whoever has a bucket asks it from time
// to time.
//
// Classes have strict priority: while a higher class waits, no lower one
// passes. Urgent is also exempt from waiting for a debt that others made, as
// long as it keeps to the rate itself; what it sends is charged all the same,
// so the others make room for it.
package shaper
