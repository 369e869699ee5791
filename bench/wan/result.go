package wan

import (
	"slices"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// A Result is one cell. Shares are of 1.
type Result struct {
	Row  string `json:"row"`
	Peer string `json:"peer"`
	Kind Kind   `json:"kind"`
	// Err is why there is nothing else.
	Err string `json:"error,omitempty"`

	Goodput  float64       `json:"goodput"`   // of the line, from cold, over the whole time
	Steady   float64       `json:"steady"`    // of the line, over the second half
	T90      time.Duration `json:"t90_ns"`    // -1: never
	Wasted   float64       `json:"wasted"`    // of the bytes sent
	Overflow float64       `json:"overflow"`  // of the bytes sent: those that found the queue full
	Wire     float64       `json:"wire"`      // bytes sent on the line for each byte delivered
	CPUSend  float64       `json:"cpu_send"`  // seconds for each Gbit delivered
	CPURecv  float64       `json:"cpu_recv"`  // the same of the receiver
	QueueMax time.Duration `json:"queue_ns"`  // the longest queue before the bottleneck
	PingP50  time.Duration `json:"p50_ns"`    // of small messages
	PingP99  time.Duration `json:"p99_ns"`    // the same
	PingMax  time.Duration `json:"max_ns"`    // the same
	Least    float64       `json:"least"`     // least of any second, over the cap
	Most     float64       `json:"most"`      // most of any second, over the cap
	Peak     float64       `json:"peak_10ms"` // most of any 10 ms, over the mean
	Stall    time.Duration `json:"stall_ns"`  // the longest time in which nothing arrived, once something had
	Rate     float64       `json:"rate"`      // bits that arrived per second
	Drops    int64         `json:"drops"`     // packets and datagrams that Longhaul's ends have dropped or refused themselves
	LateMax  time.Duration `json:"late_ns"`   // the emulator's own worst error
}

// window90 is how long 90 % must last to count.
const window90 = 100 * time.Millisecond

// deliver fills in what the receiver's samples tell. start is Unix time in
// nanoseconds, rate the line's in bits per second.
func (r *Result) deliver(samples []sample, start int64, rate int64, long time.Duration) {
	at := func(d time.Duration) float64 { return deliveredAt(samples, start+int64(d)) }
	line := float64(rate) / 8
	r.Rate = 8 * (at(long) - at(0)) / long.Seconds()
	r.T90 = -1
	if rate == 0 {
		return
	}
	r.Goodput = (at(long) - at(0)) / (line * long.Seconds())
	r.Steady = (at(long) - at(long/2)) / (line * (long / 2).Seconds())
	for d := window90; d <= long; d += sampleEvery {
		if at(d)-at(d-window90) >= 0.9*line*window90.Seconds() {
			r.T90 = d
			break
		}
	}
}

// stall fills in the longest time in which nothing arrived. start is as in deliver.
func (r *Result) stall(samples []sample, start int64, long time.Duration) {
	var last sample // in which something had arrived
	for _, s := range samples {
		switch {
		case s.At < start || s.At > start+int64(long):
		case s.Bytes > last.Bytes:
			last = s
		case last.Bytes > 0:
			r.Stall = max(r.Stall, time.Duration(s.At-last.At))
		}
	}
}

// deliveredAt is the bytes delivered until a time, between samples in proportion.
func deliveredAt(samples []sample, at int64) float64 {
	i, found := slices.BinarySearchFunc(samples, at, func(s sample, at int64) int {
		switch {
		case s.At < at:
			return -1
		case s.At > at:
			return 1
		}
		return 0
	})
	switch {
	case found:
		return float64(samples[i].Bytes)
	case len(samples) == 0 || i == 0:
		return 0
	case i == len(samples):
		return float64(samples[i-1].Bytes)
	}
	a, b := samples[i-1], samples[i]
	return float64(a.Bytes) + float64(b.Bytes-a.Bytes)*float64(at-a.At)/float64(b.At-a.At)
}

// use fills in what the line's counters tell of the sending direction.
// delivered is the bytes that the application got meanwhile.
func (r *Result) use(before, after wanem.Counters, delivered float64, rate int64) {
	sent := float64(after.In.Sub(before.In).Bytes)
	full := float64(after.Full.Sub(before.Full).Bytes)
	lost := float64(after.Lost.Sub(before.Lost).Bytes)
	if sent > 0 {
		r.Wasted, r.Overflow = (full+lost)/sent, full/sent
	}
	if delivered > 0 {
		r.Wire = sent / delivered
	}
	if rate > 0 {
		r.QueueMax = time.Duration(float64(after.QueueMax) * 8 / float64(rate) * float64(time.Second))
	}
	r.LateMax = after.LateMax
}

// ping fills in the small messages.
func (r *Result) ping(took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	r.PingP50 = took[len(took)/2]
	r.PingP99 = took[min(len(took)*99/100, len(took)-1)]
	r.PingMax = took[len(took)-1]
}

// shape fills in how exactly a cap in bytes per second was kept, by samples of
// what came onto the line. The first and the last second of a longer run are
// left out: between them the sender always has something to send.
func (r *Result) shape(samples []sample, cap float64) {
	if len(samples) < 2 {
		return
	}
	first, last := samples[0].At+int64(time.Second), samples[len(samples)-1].At-int64(time.Second)
	rate := func(from, to int64) float64 {
		return (deliveredAt(samples, to) - deliveredAt(samples, from)) / (float64(to-from) / float64(time.Second))
	}
	if last-first < int64(time.Second) {
		return
	}
	r.Least = rate(first, first+int64(time.Second)) / cap
	for at := first; at+int64(time.Second) <= last; at += int64(10 * time.Millisecond) {
		x := rate(at, at+int64(time.Second)) / cap
		r.Least, r.Most = min(r.Least, x), max(r.Most, x)
	}
	mean := rate(first, last)
	// Samples come as they can: a window is from one sample to the first that is
	// at least 10 ms later.
	j := 0
	for i, s := range samples {
		for j < len(samples) && samples[j].At < s.At+int64(10*time.Millisecond) {
			j++
		}
		if j == len(samples) || samples[j].At > last {
			break
		}
		if s.At >= first {
			r.Peak = max(r.Peak, rate(samples[i].At, samples[j].At)/mean)
		}
	}
}

// statFields are the fields of /proc/PID/stat by their number in proc(5), which
// begins at 1. The name, field 2, may itself contain spaces and parentheses.
func statFields(stat string) []string {
	_, rest, _ := strings.Cut(stat[max(strings.LastIndexByte(stat, ')'), 0):], ") ")
	return append([]string{"", "pid", "name"}, strings.Fields(rest)...)
}
