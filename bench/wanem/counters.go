package wanem

import (
	"encoding/json"
	"maps"
	"time"
)

// Count is a number of packets and their bytes, Ethernet headers included.
type Count struct {
	Packets int64 `json:"packets"`
	Bytes   int64 `json:"bytes"`
}

func (c *Count) add(n int) {
	c.Packets++
	c.Bytes += int64(n)
}

// Sub is c minus what it was at an earlier time.
func (c Count) Sub(earlier Count) Count {
	return Count{c.Packets - earlier.Packets, c.Bytes - earlier.Bytes}
}

// Add is the sum of c and d.
func (c Count) Add(d Count) Count {
	return Count{c.Packets + d.Packets, c.Bytes + d.Bytes}
}

// Counters of one direction, since it began.
type Counters struct {
	In         Count `json:"in"`         // came from the sender
	Out        Count `json:"out"`        // were delivered, duplicates included
	Lost       Count `json:"lost"`       // by Loss
	Full       Count `json:"full"`       // found the queue full
	Cut        Count `json:"cut"`        // came, waited or flew while the line was cut
	Refused    Count `json:"refused"`    // over the emulator's own memory, or refused by the receiving TAP
	Duplicated Count `json:"duplicated"` // extra copies
	Reordered  Count `json:"reordered"`  // held back so that others could overtake

	Queue    int64 `json:"queue_bytes"`     // waiting before the bottleneck now
	QueueMax int64 `json:"queue_max_bytes"` // the most that ever waited
	Flying   int64 `json:"flying_packets"`  // under way behind the bottleneck now

	LateMax time.Duration `json:"late_max_ns"` // worst delivery behind its due time: the emulator's own error
	LateSum time.Duration `json:"late_sum_ns"` // over all of Out

	// Flows counts In by flow. At most MaxFlows are told apart; the rest is
	// in the zero Flow.
	Flows map[Flow]Count `json:"-"`
}

// MaxFlows bounds the table of flows; a lab has a few dozen.
const MaxFlows = 4096

// Sum adds up the flows that match picks.
func (c Counters) Sum(match func(Flow) bool) Count {
	var sum Count
	for f, n := range c.Flows {
		if match(f) {
			sum = sum.Add(n)
		}
	}
	return sum
}

func (c Counters) clone() Counters {
	c.Flows = maps.Clone(c.Flows)
	return c
}

// FlowCount is one row of the table of flows, as JSON has it.
type FlowCount struct {
	Flow
	Count
}

type plainCounters Counters // without the methods, so that JSON does not recurse

type jsonCounters struct {
	plainCounters
	Table []FlowCount `json:"flows"`
}

// MarshalJSON writes the flows as a list; JSON has no keys of structs.
func (c Counters) MarshalJSON() ([]byte, error) {
	j := jsonCounters{plainCounters: plainCounters(c), Table: []FlowCount{}}
	for f, n := range c.Flows {
		j.Table = append(j.Table, FlowCount{f, n})
	}
	return json.Marshal(j)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (c *Counters) UnmarshalJSON(b []byte) error {
	var j jsonCounters
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*c = Counters(j.plainCounters)
	c.Flows = make(map[Flow]Count, len(j.Table))
	for _, row := range j.Table {
		c.Flows[row.Flow] = row.Count
	}
	return nil
}
