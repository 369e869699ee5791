package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/longhaul-project/longhaul/gateway"
)

// moves shows those that have left this site and ended.
func moves(m metrics, t gateway.MoveTotals, took gateway.MoveTimes) {
	for _, r := range []struct {
		result gateway.JobState
		n      int64
	}{{gateway.JobDone, t.Done}, {gateway.JobAborted, t.Aborted}, {gateway.JobFailed, t.Failed}} {
		m.counter("moves_total", "Moves that have left this site, by how they ended.", r.n, "result", string(r.result))
	}
	m.counter("moves_logical_bytes_total", "Bytes that the hypervisors wrote for moves that have ended.", t.Logical)
	m.counter("moves_wire_bytes_total", "Bytes sent for moves that have ended, without packet headers.", t.Wire)
	m.histogram("move_duration_seconds", "From the request to the release of the source, of moves that succeeded.", took.Duration)
	m.histogram("move_downtime_seconds", "How long the VMs of moves that succeeded stood still.", took.Downtime)
}

// histogram sends durations; Prometheus wants each part to hold those below it.
func (m metrics) histogram(name, help string, h gateway.Histogram) {
	below, n := make(map[float64]uint64, len(h.Bounds)), uint64(0)
	for i, bound := range h.Bounds {
		n += uint64(h.Counts[i])
		below[bound.Seconds()] = n
	}
	if len(h.Counts) > len(h.Bounds) {
		n += uint64(h.Counts[len(h.Bounds)])
	}
	m.out <- prometheus.MustNewConstHistogram(desc(name, help), n, h.Sum.Seconds(), below)
}
