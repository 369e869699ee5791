package shaper

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// TestTake plays scripts against a core: exact times, exact waits.
func TestTake(t *testing.T) {
	type step struct {
		at    time.Duration
		rate  int64 // -1: leave it, else SetRate instead of Take
		class Class
		n     int
		want  time.Duration
	}
	take := func(at time.Duration, class Class, n int, want time.Duration) step {
		return step{at: at, rate: -1, class: class, n: n, want: want}
	}
	setRate := func(at time.Duration, rate int64) step { return step{at: at, rate: rate} }
	tests := []struct {
		name  string
		steps []step
	}{
		{"no cap", []step{take(0, Bulk, 1<<40, 0), take(0, Urgent, 1, 0)}},
		{"debt is paid at the rate", []step{
			setRate(0, 1000),
			take(0, Bulk, 500, 0),
			take(0, Bulk, 1, 500*ms),
			take(400*ms, Bulk, 1, 100*ms),
			take(500*ms, Bulk, 1, 0),
		}},
		{"100 kbit/s carries a batch of 20 KiB", []step{
			setRate(0, 12500),
			take(0, Bulk, 20<<10, 0),
			take(0, Bulk, 1, 1638400*time.Microsecond),
		}},
		{"25 Gbit/s", []step{
			setRate(0, 3_125_000_000),
			take(0, Bulk, 62500, 0),
			take(0, Bulk, 1, 20*time.Microsecond),
		}},
		{"a stall is made up for at 1.25 times the rate", []step{
			setRate(0, 1_000_000),
			// One second of silence leaves 30 ms = 30 000 bytes in the long
			// budget and 6250 in the short one.
			take(time.Second, Bulk, 6250, 0),
			take(time.Second, Bulk, 12500, 0),                        // short: -12 500
			take(time.Second, Bulk, 1, 11*ms),                        // that was more than 13 ms of the rate
			take(time.Second+11*ms, Bulk, 23250, 0),                  // long: 30000-18750+11000 -> -1000
			take(time.Second+12*ms, Bulk, 1, 16600*time.Microsecond), // short: 1250 -> -22 000 -> -20 750
		}},
		{"urgent does not wait for others, and they make room", []step{
			setRate(0, 1_000_000),
			take(0, Bulk, 20_000, 0),
			take(0, Urgent, 1000, 0),
			take(0, Urgent, 1000, 1*ms), // its own rate
			take(1*ms, Urgent, 1000, 0),
			take(1*ms, L2, 1, 21*ms), // 20 000 + 2000 - 1000
		}},
		{"a lower rate keeps debt in time", []step{
			setRate(0, 1_000_000),
			take(0, Bulk, 20_000, 0),
			setRate(0, 1000),
			take(0, Bulk, 1, 20*ms),
		}},
		{"a higher rate keeps debt in bytes", []step{
			setRate(0, 1000),
			take(0, Bulk, 20_000, 0),
			take(0, Bulk, 1, 20*time.Second),
			setRate(0, 1_000_000),
			take(0, Bulk, 1, 20*ms),
		}},
		{"a lower rate cuts credit", []step{
			setRate(0, 1_000_000),
			setRate(time.Second, 1000), // 30 bytes, 6 in the short budget
			take(time.Second, Bulk, 46, 0),
			take(time.Second, Bulk, 1, 31800*time.Microsecond), // -16 and -39.75 at 1250
		}},
		{"no cap, then a cap: no old debt, no credit", []step{
			setRate(0, 1000),
			take(0, Bulk, 20_000, 0),
			setRate(0, 0),
			setRate(time.Second, 1000),
			take(time.Second, Bulk, 1, 0),
			take(time.Second, Bulk, 1, 1*ms),
		}},
		{"time that goes back counts for nothing", []step{
			setRate(time.Second, 1000),
			take(time.Second, Bulk, 10, 0),
			take(0, Bulk, 1, 10*ms),
		}},
		{"nonsense", []step{
			setRate(0, -5),
			take(0, Bulk, 1, 0),
			setRate(0, math.MaxInt64), // counts as MaxRate
			take(0, Bulk, -1, 0),
			take(0, Bulk, math.MaxInt, 0), // charged as 1 GiB
			take(0, Bulk, 0, 10737419*time.Nanosecond),
			setRate(0, 1),
			take(math.MaxInt64, Bulk, 1, 0),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c Core
			for i, s := range tt.steps {
				if s.rate != -1 {
					c.SetRate(s.at, s.rate)
				} else if got := c.Take(s.at, s.class, s.n); got != s.want {
					t.Errorf("step %d, %d bytes at %v: got wait %v, want %v", i, s.n, s.at, got, s.want)
				}
			}
		})
	}
}

// sent is one thing that left.
type sent struct {
	at time.Duration
	n  int
}

// TestWindows lets one sender with something to send at all times run under
// random sizes and random stalls of the scheduler, and looks at every window
// of one second.
func TestWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Int64Range(300_000, 3_125_000_000).Draw(t, "rate")
		quantum := quantum(rate)
		stall := time.Duration(rapid.IntRange(0, 25).Draw(t, "stall in ms")) * ms
		// At most one stall each 8 times its length: 1.25 times the rate
		// makes up for one in 5.
		rest := max(8*stall, 20*ms)
		urgent := rapid.IntRange(0, 3).Draw(t, "of 10 requests, urgent ones")
		seed := rapid.Uint64().Draw(t, "seed")
		log := play(rate, quantum, stall, rest, urgent, seed, 2500*ms)
		low, high := windows(log, rate)
		if low < 0.95 || high > 1.05 {
			t.Errorf("rate %d: windows of 1 s from %.4f to %.4f of it", rate, low, high)
		}
	})
}

// quantum is what Bucket.Quantum tells.
func quantum(rate int64) int { return New(rate).Quantum() }

// play runs a greedy sender against a core.
func play(rate int64, quantum int, stall, rest time.Duration, urgent int, seed uint64, end time.Duration) []sent {
	var c Core
	c.SetRate(0, rate)
	rnd := seed
	next := func(n int) int { // xorshift: the test only needs it to be uneven
		rnd ^= rnd<<13 | 1
		rnd ^= rnd >> 7
		rnd ^= rnd << 17
		return int(rnd % uint64(n))
	}
	var log []sent
	var now, stalled time.Duration
	size := max(quantum, int(rate/40_000)) // else a fast link takes too long to play
	size = min(size, quantum)
	for now < end {
		n := size/2 + next(size/2)
		class := Bulk
		if next(10) < urgent {
			class = Urgent
		}
		if wait := c.Take(now, class, n); wait > 0 {
			now += wait + time.Duration(next(int(ms))) // timers are late
			continue
		}
		log = append(log, sent{now, n})
		now += time.Duration(next(2000))
		if stall > 0 && now-stalled > rest && next(10) == 0 {
			now += stall
			stalled = now
		}
	}
	return log
}

// windows gives the least and the most that left in any second, as a part of
// the rate. Windows begin and end at events, which is where extremes are.
func windows(log []sent, rate int64) (low, high float64) {
	low, high = math.Inf(1), 0
	last := log[len(log)-1].at
	sum, end := 0, 0
	for _, s := range log {
		for end < len(log) && log[end].at < s.at+time.Second {
			sum += log[end].n
			end++
		}
		if s.at+time.Second > last {
			break
		}
		high = max(high, float64(sum)/float64(rate)) // begins with s
		sum -= s.n
		low = min(low, float64(sum)/float64(rate)) // begins right after s
	}
	return low, high
}

// TestPeak checks that making up for a stall is no burst: over any 50 ms no
// more than 1.25 times the rate, the short budget and one request.
func TestPeak(t *testing.T) {
	const rate, quantum = 12_500_000, 15_000
	log := play(rate, quantum, 25*ms, 200*ms, 0, 7, 2*time.Second)
	limit := 1.25*rate*(0.050+0.005) + quantum
	sum, end := 0, 0
	for _, s := range log {
		for end < len(log) && log[end].at < s.at+50*ms {
			sum += log[end].n
			end++
		}
		if float64(sum) > limit {
			t.Fatalf("%d bytes in 50 ms from %v, limit %.0f", sum, s.at, limit)
		}
		sum -= s.n
	}
}

// TestPeak10 checks the busiest 10 ms, with stalls of all lengths and timers that
// are late: 1.3 times the rate and a request, so 1.5 where that is 2 ms.
func TestPeak10(t *testing.T) {
	for _, rate := range []int64{250_000, 750_000, 6_250_000, 12_500_000, 62_500_000, 1_250_000_000} {
		for _, stall := range []time.Duration{0, 4 * ms, 12 * ms, 25 * ms} {
			quantum := quantum(rate)
			log := play(rate, quantum, stall, max(8*stall, 20*ms), 0, 7, 2*time.Second)
			if got := peak(log) / (float64(rate) / 100); got > 1.3+100*float64(quantum)/float64(rate) {
				t.Errorf("rate %d, stalls of %v: %.3f times the rate in 10 ms", rate, stall, got)
			}
			if low, _ := windows(log, rate); low < 0.97 {
				t.Errorf("rate %d, stalls of %v: %.4f of the rate in a second", rate, stall, low)
			}
		}
	}
}

// peak is the most bytes of any 10 ms.
func peak(log []sent) (most float64) {
	sum, end := 0, 0
	for _, s := range log {
		for end < len(log) && log[end].at < s.at+10*ms {
			sum += log[end].n
			end++
		}
		most = max(most, float64(sum))
		sum -= s.n
	}
	return most
}

// FuzzCore takes any calls at any time: nothing overflows into a wait without
// end or into credit out of nothing.
func FuzzCore(f *testing.F) {
	f.Add(int64(12500), int64(1e9), 20480, int64(3_125_000_000), int64(2e9), uint8(2))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), math.MaxInt, int64(1), int64(0), uint8(0))
	f.Fuzz(func(t *testing.T, rate1, at1 int64, n int, rate2, at2 int64, class uint8) {
		var c Core
		cl := Class(class % uint8(classes))
		c.SetRate(0, rate1)
		c.Take(time.Duration(at1), cl, n)
		c.SetRate(time.Duration(at1), rate2)
		wait := c.Take(time.Duration(at2), cl, n)
		if wait < 0 {
			t.Errorf("wait %v", wait)
		}
		full := c.rate * int64(Credit)
		if c.long > full || c.peak > peakRate(c.rate)*int64(peakCredit) || full < 0 {
			t.Errorf("rate %d: budgets %d and %d over what they hold", c.rate, c.long, c.peak)
		}
		if limit := max(time.Duration((maxDebt+1)*nano/max(c.rate, 1))+1, slots*slotLen); wait > limit {
			t.Errorf("rate %d: wait %v", c.rate, wait)
		}
	})
}

func BenchmarkTake(b *testing.B) {
	var c Core
	c.SetRate(0, 3_125_000_000)
	now := time.Duration(0)
	b.SetBytes(20 << 10)
	b.ReportAllocs()
	for b.Loop() {
		now += c.Take(now, Bulk, 20<<10)
	}
}

// TestCharge: what is charged afterwards holds up as much as if it had been
// charged at once, and what is refunded does not exceed the credit.
func TestCharge(t *testing.T) {
	var c Core
	c.SetRate(0, 1_000_000)
	if w := c.Take(time.Second, Bulk, 1000); w != 0 {
		t.Fatalf("first: wait %v", w)
	}
	c.Charge(time.Second, 40_000) // 41 ms in all, less the credit of 30
	if w := c.Take(time.Second, Bulk, 0); w < 10*time.Millisecond || w > 32*time.Millisecond {
		t.Errorf("after a charge: wait %v", w)
	}
	c.Charge(time.Second, -10_000_000)
	if w := c.Take(time.Second, Bulk, 40_000); w != 0 {
		t.Errorf("after a refund: wait %v", w)
	}
	if w := c.Take(time.Second, Bulk, 0); w < 9*time.Millisecond {
		t.Errorf("more was refunded than the credit: wait %v", w)
	}
}

// TestChargeRecent: what is charged afterwards counts in the busiest 10 ms, where the
// credit would still let more leave, and what is refunded does not.
func TestChargeRecent(t *testing.T) {
	const rate = 1_000_000 // 13 000 bytes may leave in 11 slots of a millisecond
	for _, tt := range []struct {
		name   string
		charge int
		want   time.Duration // what the next request waits for, 6 ms after the first
	}{
		{"nothing", 0, 0},
		{"less than is allowed", 2000, 0},
		{"more", 4000, 5 * ms}, // until the slot of the first is forgotten
		{"refund", -9000, 0},
		{"refund of more than was taken", -90_000, 0},
	} {
		var c Core
		c.SetRate(0, rate)
		c.Take(time.Second, Bulk, 10_000)
		c.Charge(time.Second+5*ms, tt.charge)
		if w := c.Take(time.Second+6*ms, Bulk, 0); w != tt.want {
			t.Errorf("%s: wait %v, want %v", tt.name, w, tt.want)
		}
	}
	var c Core
	c.SetRate(0, rate)
	c.Take(time.Second, Bulk, 6000)
	c.Take(time.Second+ms, Bulk, 9000)
	if w := c.Take(time.Second+10*ms, Bulk, 0); w != ms {
		t.Errorf("wait %v, want until the first is forgotten", w)
	}
	c.Charge(time.Second+10*ms, -3000) // 12 000 are left
	if w := c.Take(time.Second+10*ms, Bulk, 0); w != 0 {
		t.Errorf("wait %v after a refund", w)
	}
	c.Take(time.Second+11*ms, Bulk, 4000) // 13 000: the refund is not counted twice
	if w := c.Take(time.Second+11*ms, Bulk, 0); w != ms {
		t.Errorf("wait %v, want until the second is forgotten", w)
	}
}
