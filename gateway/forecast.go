package gateway

import (
	"time"
)

// A sample is what is known of a move at one moment; the forecast is a pure
// function of it.
type sample struct {
	Remaining int64         // bytes of guest memory, by the hypervisor's count
	DirtyRate int64         // bytes of guest memory per second
	Rate      int64         // bytes of guest memory per second that cross now
	Limit     time.Duration // downtime that was asked for
	RTT       time.Duration
	Drain     time.Duration // until the destination has taken what is on its way
}

// forecast is when the switchover can be expected and how long the VM will
// stand still. A negative duration means that it cannot be told (low) or that
// the guest dirties memory faster than it crosses (high).
type forecast struct{ low, high, downtime time.Duration }

const untold = -time.Second

// forecast reckons with two cases. Low: the guest dirties nothing more. High:
// it goes on as it did; then each second wins Rate - DirtyRate bytes. The VM
// stands still while the last Rate * Limit bytes cross, the backlog before
// them drains, and the orders go to and fro: one and a half round trips (state
// to B, SHUT to A, the order to B; see commit.go).
func (s sample) forecast() forecast {
	f := forecast{untold, untold, untold}
	if s.Rate <= 0 {
		return f
	}
	last := min(s.Remaining, int64(s.Limit.Seconds()*float64(s.Rate)))
	todo := max(s.Remaining-last, 0)
	f.low = seconds(todo, s.Rate)
	if s.DirtyRate < s.Rate {
		f.high = seconds(todo, s.Rate-s.DirtyRate)
	}
	f.downtime = seconds(last, s.Rate) + max(s.Drain, s.RTT) + s.RTT/2 + orders
	return f
}

// seconds is how long n bytes take at a rate in bytes per second.
func seconds(n, rate int64) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

const (
	// firstLimit is the hypervisor's downtime limit before anything is known
	// of the line: its estimate of the line is then what our buffers took.
	firstLimit = 10 * time.Millisecond

	// orders is what a switchover costs beside the transfer: events and
	// commands of two hypervisors, the loading of the device state, two
	// journals on the disk.
	orders = 40 * time.Millisecond

	// patientRounds is after how many rounds without a switchover the limit
	// rises again, until it is what was asked for at twice as many: a guest
	// that writes much would else never leave.
	patientRounds = 6
)

// lastPages is how long the last pages may take, of the downtime that was
// asked for. Less: the backlog drains first, which is acknowledged half a round
// trip after it has been taken; the destination says that it has loaded the VM,
// and the order to run travels there (together a round trip); and the orders
// (hypervisor-wire.md, section 4).
func lastPages(asked, rtt, drain time.Duration, rounds int) time.Duration {
	rest := asked - max(drain, rtt) - rtt/2 - orders
	floor := firstLimit
	if over := rounds - patientRounds; over > 0 {
		floor = max(floor, asked*time.Duration(min(over, patientRounds))/patientRounds)
	}
	return min(max(rest, floor), max(asked, firstLimit))
}
