// Package metrics shows a gateway to Prometheus. It keeps nothing: each scrape
// asks the gateway what the operator's interface would show.
package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longhaul-project/longhaul/gateway"
)

// scrapeTime bounds how long the gateway may take to answer; Prometheus gives
// up after 10 s by default.
const scrapeTime = 5 * time.Second

// Source is what is shown; the API's backend is one.
type Source interface {
	Status(ctx context.Context) (gateway.Status, error)
	MoveTimes() gateway.MoveTimes
	CodecTotals() []gateway.CodecReport
	Jobs(ctx context.Context) ([]gateway.Job, error)
	Forwards(ctx context.Context) ([]gateway.Forward, error)
	Segments(ctx context.Context) ([]gateway.Segment, error)
}

// Collector is a prometheus.Collector. Make it with New.
type Collector struct{ src Source }

// New makes a collector of src.
func New(src Source) *Collector { return &Collector{src} }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("longhaul_"+name, help, labels, nil)
}

// Describe sends nothing: what is shown depends on the peers and the jobs.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks the gateway and sends what it says. A part that cannot be asked
// is left out and counted in longhaul_scrape_errors.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	m := metrics{out}
	failed := 0
	for _, part := range []func(context.Context, metrics) error{c.status, c.jobs, c.forwards, c.segments} {
		if err := part(ctx, m); err != nil {
			failed++
		}
	}
	m.gauge("scrape_errors", "Parts of the gateway that could not be asked in this scrape.", float64(failed))
}

// metrics sends single values.
type metrics struct{ out chan<- prometheus.Metric }

func (m metrics) gauge(name, help string, v float64, labelled ...string) {
	m.send(prometheus.GaugeValue, name, help, v, labelled)
}

func (m metrics) counter(name, help string, v int64, labelled ...string) {
	m.send(prometheus.CounterValue, name, help, float64(v), labelled)
}

// send takes labels as name, value, name, value.
func (m metrics) send(kind prometheus.ValueType, name, help string, v float64, labelled []string) {
	var names, values []string
	for i := 0; i+1 < len(labelled); i += 2 {
		names, values = append(names, labelled[i]), append(values, labelled[i+1])
	}
	m.out <- prometheus.MustNewConstMetric(desc(name, help, names...), kind, v, values...)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *Collector) status(ctx context.Context, m metrics) error {
	st, err := c.src.Status(ctx)
	if err != nil {
		return err
	}
	m.gauge("info", "Always 1; the labels say what runs.", 1, "site", st.Site, "gateway", st.Gateway, "version", st.Version)
	m.gauge("start_time_seconds", "When the gateway started, as a Unix time.", float64(st.Since.Unix()))
	if !st.CertEnd.IsZero() {
		m.gauge("certificate_expiry_time_seconds", "When the gateway's certificate ends, as a Unix time.", float64(st.CertEnd.Unix()))
	}
	m.gauge("store_bytes", "Pages that the content stores hold, in bytes.", float64(st.Store.Bytes))
	m.gauge("store_budget_bytes", "Pages that the content stores may hold, in bytes.", float64(st.Store.Budget))
	m.gauge("store_memory_bytes", "Memory that the content stores use, in bytes.", float64(st.Store.Memory))
	m.gauge("store_disk_bytes", "Disk that the content stores use, in bytes.", float64(st.Store.Disk))
	m.gauge("store_pages", "Pages that the content stores hold.", float64(st.Store.Pages))
	moves(m, st.Moves, c.src.MoveTimes())
	codecs(m, c.src.CodecTotals())
	portDrops(m, st.Drops)
	for _, h := range st.Hosts {
		m.gauge("host_up", "1 when the hypervisor host can be asked.", one(h.Problem == ""), "host", h.Name)
		m.gauge("host_vms", "VMs of the host.", float64(h.VMs), "host", h.Name)
	}
	for _, p := range st.Peers {
		peer(m, p)
	}
	return nil
}

func (c *Collector) jobs(ctx context.Context, m metrics) error {
	jobs, err := c.src.Jobs(ctx)
	if err != nil {
		return err
	}
	states := map[gateway.JobState]int{
		gateway.JobPreparing: 0, gateway.JobMoving: 0, gateway.JobSwitching: 0, gateway.JobCommit: 0,
		gateway.JobDone: 0, gateway.JobAborted: 0, gateway.JobFailed: 0, gateway.JobInDoubt: 0,
	}
	for _, j := range jobs {
		states[j.State]++
		if !j.State.Ended() {
			progress(m, j)
		}
	}
	for s, n := range states {
		m.gauge("jobs", "Jobs that the gateway knows, by state.", float64(n), "state", string(s))
	}
	return nil
}

func progress(m metrics, j gateway.Job) {
	labels := []string{"job", j.ID, "vm", j.VM}
	m.gauge("job_remaining_bytes", "Guest memory that still has to cross.", float64(j.Progress.Remaining), labels...)
	m.gauge("job_backlog_bytes", "Encoded bytes that the destination has not taken yet.", float64(j.Progress.Backlog), labels...)
	m.gauge("job_dirty_rate_bytes_per_second", "Rate at which the guest dirties memory.", float64(j.Progress.DirtyRate)/8, labels...)
	m.counter("job_logical_bytes_total", "Bytes that the source wrote.", j.Progress.LogicalBytes, labels...)
	m.counter("job_wire_bytes_total", "Bytes sent for the job, without packet headers.", j.Progress.WireBytes, labels...)
	if p := j.Progress; p.Codec != "" {
		m.gauge("job_codec_info", "Always 1; the labels say how what crosses is compressed, and what holds the job up.", 1,
			append(labels, "codec", p.Codec, "limited_by", p.LimitedBy)...)
	}
}

func (c *Collector) forwards(ctx context.Context, m metrics) error {
	all, err := c.src.Forwards(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		m.gauge("forward_connections", "Connections open now.", float64(f.Conns), "forward", f.Name)
		m.counter("forward_connections_total", "Connections so far.", f.Total, "forward", f.Name)
		m.counter("forward_logical_bytes_total", "Bytes that came in here.", f.Logical, "forward", f.Name)
		m.counter("forward_wire_bytes_total", "Bytes sent on the WAN for them.", f.Wire, "forward", f.Name)
	}
	return nil
}

func (c *Collector) segments(ctx context.Context, m metrics) error {
	all, err := c.src.Segments(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		m.gauge("segment_bindings", "MACs whose site is known.", float64(len(s.Bindings)), "segment", s.Name)
		m.gauge("segment_healthy", "1 while the segment has no problem.", one(s.Problem == ""), "segment", s.Name)
		m.counter("segment_sent_frames_total", "Frames sent to other sites.", s.Sent, "segment", s.Name)
		m.counter("segment_received_frames_total", "Frames received from other sites.", s.Received, "segment", s.Name)
		m.counter("segment_dropped_frames_total", "Frames dropped, for any reason.", s.Dropped, "segment", s.Name)
		m.gauge("segment_mode", "1 for the mode in which the segment is carried.", 1, "segment", s.Name, "mode", s.Mode)
		for _, w := range s.Ways {
			m.gauge("segment_underlay_up", "1 while full frames come back from a site over the underlay, in mode direct.", one(w.Up), "segment", s.Name, "peer", w.Site)
		}
		segmentCounts(m, s)
		for _, v := range s.Streams {
			labels := []string{"segment", s.Name, "peer", v.Site}
			m.gauge("segment_streams", "1 while TCP connections of its hosts cross to the site by reliable streams.", one(v.On), labels...)
			m.gauge("segment_loss_ratio", "Share of what was sent to the site that was lost of late.", v.Loss, labels...)
		}
	}
	return nil
}

// segmentCounts shows what is counted of a segment, beside the sums.
func segmentCounts(m metrics, s gateway.Segment) {
	label := []string{"segment", s.Name}
	m.counter("segment_sent_bytes_total", "Bytes of frames sent to other sites.", s.Counts["sent_bytes"], label...)
	m.counter("segment_received_bytes_total", "Bytes of frames received from other sites.", s.Counts["received_bytes"], label...)
	m.counter("segment_streamed_frames_total", "Frames sent to other sites by reliable streams.", s.Counts["streamed"], label...)
	m.counter("segment_flips_total", "Times that a MAC has changed its site.", s.Counts["flips"], label...)
	m.counter("segment_gaps_total", "Moves of VMs away from this site whose silence was measured.", s.Counts["gaps"], label...)
	m.send(prometheus.CounterValue, "segment_gap_seconds_total", "Silence of the VMs in these moves, without the time that the word was under way.", float64(s.Counts["gap_us"])/1e6, label)
	m.counter("segment_loops_total", "Times that a loop was found behind the gateways.", s.Counts["loop_trips"], label...)
	m.counter("segment_conflict_frames_total", "Frames from a MAC that is bound to another site.", s.Counts["conflicts"], label...)
	m.counter("segment_refused_announcements_total", "Announcements of other sites that were refused: garbled, or about what is not theirs.", s.Counts["refused"], label...)
	m.counter("segment_unsent_announcements_total", "Announcements that found no room in the queue to a site.", s.Counts["unsent"], label...)
	m.counter("segment_route_failures_total", "Calls of host_route that failed or took too long.", s.Counts["route_failures"], label...)
	m.counter("segment_way_changes_total", "Times that another site has told another way in which it carries the segment.", s.Counts["way_changes"], label...)
	for name, n := range s.Counts {
		if reason, ok := strings.CutPrefix(name, "drop_"); ok {
			m.counter("segment_drop_reason_frames_total", "Frames dropped, by reason.", n, "segment", s.Name, "reason", reason)
		}
	}
}
