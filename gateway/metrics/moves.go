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

// codecs shows what was chosen to compress with.
func codecs(m metrics, all []gateway.CodecReport) {
	for _, r := range all {
		label := []string{"codec", r.Codec}
		m.counter("codec_batches_total", "Batches of moves and forwards that were compressed, by setting.", r.Batches, label...)
		m.counter("codec_logical_bytes_total", "Bytes that hypervisors wrote for these batches.", r.LogicalBytes, label...)
		m.counter("codec_wire_bytes_total", "Bytes sent for these batches, without packet headers.", r.WireBytes, label...)
		m.send(prometheus.CounterValue, "codec_cpu_seconds_total", "CPU time to encode and compress these batches.", float64(r.CPU)/1e3, label)
	}
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
