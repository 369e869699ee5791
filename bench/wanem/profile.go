package wanem

import (
	"errors"
	"fmt"
	"time"
)

// Profile is how one direction of the WAN behaves. The zero value is a
// perfect line.
type Profile struct {
	// Rate of the bottleneck in bits per second of Ethernet frames, without
	// preamble and checksum. Zero means no limit and no queue.
	Rate int64 `json:"rate_bps"`

	// Delay is the one-way delay, added after the bottleneck.
	Delay time.Duration `json:"delay_ns"`

	// Jitter is added to Delay, uniform between zero and this. It never
	// changes the order of packets.
	Jitter time.Duration `json:"jitter_ns"`

	// Loss is the share of packets lost at random, 0 to 1.
	Loss float64 `json:"loss"`

	// Burst is the mean number of packets lost in a row. Up to 1, packets
	// are lost independently of each other; above, by a two-state (Gilbert)
	// model that loses the same share in all.
	Burst float64 `json:"burst"`

	// Reorder is the share of packets that come late and are overtaken.
	Reorder float64 `json:"reorder"`

	// ReorderBy is how late they come at most. Zero means a quarter of
	// Delay, at least a millisecond.
	ReorderBy time.Duration `json:"reorder_by_ns"`

	// Duplicate is the share of packets delivered twice.
	Duplicate float64 `json:"duplicate"`

	// Queue is the room before the bottleneck in bytes; what does not fit is
	// dropped. Zero means one bandwidth-delay product of the round trip (2 x
	// Delay), and at least MinQueue.
	Queue int64 `json:"queue_bytes"`
}

// MinQueue is the smallest default queue: about 64 full frames, so that a
// line without delay still takes a sender's burst.
const MinQueue = 64 * 1514

// errProfile is the reason of all refusals of a Profile.
var errProfile = errors.New("wanem: impossible profile")

// Check tells whether p can be.
func (p Profile) Check() error {
	for _, share := range []struct {
		name string
		v    float64
	}{{"loss", p.Loss}, {"reorder", p.Reorder}, {"duplicate", p.Duplicate}} {
		if !(share.v >= 0 && share.v <= 1) { // also catches NaN
			return fmt.Errorf("%w: %s %v is not between 0 and 1", errProfile, share.name, share.v)
		}
	}
	if p.Rate < 0 || p.Queue < 0 || p.Delay < 0 || p.Jitter < 0 || p.ReorderBy < 0 || !(p.Burst >= 0) {
		return fmt.Errorf("%w: negative value in %+v", errProfile, p)
	}
	return nil
}

// queue is the room before the bottleneck in bytes.
func (p Profile) queue() int64 {
	if p.Queue > 0 {
		return p.Queue
	}
	bdp := int64(float64(p.Rate) / 8 * (2 * p.Delay).Seconds())
	return max(bdp, MinQueue)
}

// transmission is how long n bytes take on the bottleneck.
func (p Profile) transmission(n int) time.Duration {
	if p.Rate == 0 {
		return 0
	}
	return time.Duration(float64(n) * 8 * float64(time.Second) / float64(p.Rate))
}

// late is how late a reordered packet comes at most.
func (p Profile) late() time.Duration {
	if p.ReorderBy > 0 {
		return p.ReorderBy
	}
	return max(p.Delay/4, time.Millisecond)
}
