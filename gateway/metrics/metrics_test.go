package metrics_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/metrics"
)

// source is a gateway that shows one of everything.
type source struct{ broken bool }

func (source) Status(context.Context) (gateway.Status, error) {
	return gateway.Status{
		Site: "a", Gateway: "gw1", Version: "1", Since: time.Unix(1, 0), CertEnd: time.Unix(2, 0),
		Peers: []gateway.PeerStatus{{Site: "b", Alive: true, Member: "alive", RTT: 60, Sent: 5, Rate: 8000, Copied: 9, Twice: 8,
			Classes: []gateway.Class{{Name: "disk", Weight: 16, Sent: 10}},
			Drops:   gateway.LinkDrops{SendQueue: 1, ReceiveQueue: 2, Unsendable: 3, Socket: 4, Busy: 5}}, {Site: "c"}},
		Drops: gateway.PortDrops{Packets: 6, Refused: 7},
		Moves: gateway.MoveTotals{Done: 2, Failed: 1, Logical: 300, Wire: 100},
		Hosts: []gateway.HostStatus{{Name: "h1", VMs: 2}, {Name: "h2", Problem: "gone"}},
	}, nil
}

func (source) MoveTimes() gateway.MoveTimes {
	return gateway.MoveTimes{
		Duration: gateway.Histogram{Bounds: []time.Duration{time.Second, time.Minute}, Counts: []int64{1, 2, 3}, Sum: 400 * time.Second},
		Downtime: gateway.Histogram{Bounds: []time.Duration{300 * time.Millisecond}, Counts: []int64{5, 0}, Sum: time.Second},
	}
}

func (source) CodecTotals() []gateway.CodecReport {
	return []gateway.CodecReport{{Codec: "lz4, no search", Batches: 4, LogicalBytes: 400, WireBytes: 200, CPU: 1500}}
}

func (source) Jobs(context.Context) ([]gateway.Job, error) {
	moving := gateway.JobProgress{Codec: "zstd-3, 4 bases", LimitedBy: "line"}
	return []gateway.Job{{ID: "m-1", VM: "db1", State: gateway.JobMoving, Progress: moving}, {ID: "m-2", VM: "db1", State: gateway.JobDone}}, nil
}

func (source) Forwards(context.Context) ([]gateway.Forward, error) {
	return []gateway.Forward{{Name: "f", Total: 3}}, nil
}

func (s source) Segments(context.Context) ([]gateway.Segment, error) {
	if s.broken {
		return nil, errors.New("broken")
	}
	return []gateway.Segment{{Name: "prod", Dropped: 7, Counts: map[string]int64{"gaps": 2, "gap_us": 1_500_000, "refused": 3}, Streams: []gateway.SegmentStream{{Site: "b", On: true, Loss: 0.25}}}}, nil
}

// gather returns the metrics as "name{labels} value".
func gather(t *testing.T, s source) []string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(metrics.New(s))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
		for _, m := range f.GetMetric() {
			lines = append(lines, f.GetName()+" "+regexp.MustCompile(`\s+`).ReplaceAllString(m.String(), " "))
		}
	}
	return lines
}

func TestCollect(t *testing.T) {
	lines := gather(t, source{})
	for _, want := range []string{
		`longhaul_link_up label:{name:"peer" value:"b"} gauge:{value:1}`,
		`longhaul_link_up label:{name:"peer" value:"c"} gauge:{value:0}`,
		`longhaul_link_rtt_seconds label:{name:"peer" value:"b"} gauge:{value:0.06}`,
		`longhaul_link_rate_bytes_per_second label:{name:"peer" value:"b"} gauge:{value:1000}`,
		`longhaul_link_dropped_datagrams_total label:{name:"peer" value:"b"} label:{name:"reason" value:"send_queue"} counter:{value:1}`,
		`longhaul_link_dropped_datagrams_total label:{name:"peer" value:"b"} label:{name:"reason" value:"receive_queue"} counter:{value:2}`,
		`longhaul_link_dropped_datagrams_total label:{name:"peer" value:"b"} label:{name:"reason" value:"unsendable"} counter:{value:3}`,
		`longhaul_link_class_sent_bytes_total label:{name:"class" value:"disk"} label:{name:"peer" value:"b"} counter:{value:10}`,
		`longhaul_link_dropped_packets_total label:{name:"peer" value:"b"} counter:{value:4}`,
		`longhaul_link_busy_reads_total label:{name:"peer" value:"b"} counter:{value:5}`,
		`longhaul_port_dropped_packets_total counter:{value:6}`,
		`longhaul_port_refused_connections_total counter:{value:7}`,
		`longhaul_link_copied_bytes_total label:{name:"peer" value:"b"} counter:{value:9}`,
		`longhaul_link_twice_bytes_total label:{name:"peer" value:"b"} counter:{value:8}`,
		`longhaul_host_up label:{name:"host" value:"h2"} gauge:{value:0}`,
		`longhaul_jobs label:{name:"state" value:"done"} gauge:{value:1}`,
		`longhaul_jobs label:{name:"state" value:"failed"} gauge:{value:0}`,
		`longhaul_segment_dropped_frames_total label:{name:"segment" value:"prod"} counter:{value:7}`,
		`longhaul_segment_gaps_total label:{name:"segment" value:"prod"} counter:{value:2}`,
		`longhaul_segment_gap_seconds_total label:{name:"segment" value:"prod"} counter:{value:1.5}`,
		`longhaul_segment_refused_announcements_total label:{name:"segment" value:"prod"} counter:{value:3}`,
		`longhaul_segment_streams label:{name:"peer" value:"b"} label:{name:"segment" value:"prod"} gauge:{value:1}`,
		`longhaul_segment_loss_ratio label:{name:"peer" value:"b"} label:{name:"segment" value:"prod"} gauge:{value:0.25}`,
		`longhaul_moves_total label:{name:"result" value:"done"} counter:{value:2}`,
		`longhaul_moves_total label:{name:"result" value:"aborted"} counter:{value:0}`,
		`longhaul_moves_total label:{name:"result" value:"failed"} counter:{value:1}`,
		`longhaul_moves_logical_bytes_total counter:{value:300}`,
		`longhaul_moves_wire_bytes_total counter:{value:100}`,
		`longhaul_move_duration_seconds histogram:{sample_count:6 sample_sum:400 ` +
			`bucket:{cumulative_count:1 upper_bound:1} bucket:{cumulative_count:3 upper_bound:60}}`,
		`longhaul_move_downtime_seconds histogram:{sample_count:5 sample_sum:1 bucket:{cumulative_count:5 upper_bound:0.3}}`,
		`longhaul_codec_batches_total label:{name:"codec" value:"lz4, no search"} counter:{value:4}`,
		`longhaul_codec_logical_bytes_total label:{name:"codec" value:"lz4, no search"} counter:{value:400}`,
		`longhaul_codec_wire_bytes_total label:{name:"codec" value:"lz4, no search"} counter:{value:200}`,
		`longhaul_codec_cpu_seconds_total label:{name:"codec" value:"lz4, no search"} counter:{value:1.5}`,
		`longhaul_job_codec_info label:{name:"codec" value:"zstd-3, 4 bases"} label:{name:"job" value:"m-1"} ` +
			`label:{name:"limited_by" value:"line"} label:{name:"vm" value:"db1"} gauge:{value:1}`,
		`longhaul_scrape_errors gauge:{value:0}`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %s in\n%s", want, strings.Join(lines, "\n"))
		}
	}
	for _, l := range lines {
		if strings.Contains(l, `value:"m-2"`) {
			t.Errorf("an ended job is shown as if it ran: %s", l)
		}
	}
}

func TestCollectWithoutAPart(t *testing.T) {
	lines := gather(t, source{broken: true})
	if !slices.Contains(lines, "longhaul_scrape_errors gauge:{value:1}") || !slices.Contains(lines, `longhaul_host_vms label:{name:"host" value:"h1"} gauge:{value:2}`) {
		t.Errorf("one broken part hides the others:\n%s", strings.Join(lines, "\n"))
	}
}
