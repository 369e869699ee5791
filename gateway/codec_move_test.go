package gateway_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// TestMoveTellsItsCodec: a move over a thin line is compressed hard from the
// first batch on, one over a line that is not known begins with zstd 1, and both
// say so.
func TestMoveTellsItsCodec(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		rate   int64 // bits per second
		memory int64 // bytes
		want   func(codec string) bool
	}{
		{"thin", 10e6, 8 << 20, func(c string) bool { return strings.HasPrefix(c, "zstd-") && !strings.HasPrefix(c, "zstd-1,") }},
		{"loopback", 0, 16 << 20, func(c string) bool { return c == "zstd-1, 4 bases" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, ledger := newPair(t, hvtest.Guest{Memory: c.memory})
			j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Rate: c.rate})
			if err != nil {
				t.Fatal(err)
			}
			j = a.wait(j.ID)
			if j.State != gateway.JobDone {
				t.Fatalf("job: %s: %s", j.State, j.Error)
			}
			ledger.Check(t, "db1", "host-b")
			if j.Progress.Codec == "" || j.Progress.LimitedBy == "" {
				t.Errorf("progress tells codec %q, limited by %q", j.Progress.Codec, j.Progress.LimitedBy)
			}
			var logical, wire int64
			told := false
			for _, part := range j.Report.Codecs {
				t.Logf("%+v", part)
				logical, wire = logical+part.LogicalBytes, wire+part.WireBytes
				told = told || c.want(part.Codec)
			}
			if logical != j.Report.LogicalBytes || wire > j.Report.WireBytes || wire < j.Report.WireBytes*9/10 {
				t.Errorf("the parts add up to %d bytes as %d, the report says %d as %d", logical, wire, j.Report.LogicalBytes, j.Report.WireBytes)
			}
			if !told {
				t.Errorf("no batch is compressed as expected: %+v", j.Report.Codecs)
			}
			checkTotals(t, a, j.Report.Codecs)
			if far := b.wait(j.ID); far.Report == nil || len(far.Report.Codecs) != len(j.Report.Codecs) {
				t.Errorf("the destination does not tell of it: %+v", far.Report)
			}
		})
	}
}

// checkTotals checks what a gateway tells of all its sessions, after one.
func checkTotals(t *testing.T, s *site, want []gateway.CodecReport) {
	t.Helper()
	if d := cmp.Diff(want, s.g.CodecTotals()); d != "" {
		t.Errorf("the gateway tells of other work than the move (-move +gateway):\n%s", d)
	}
}

// TestAbortedMoveTellsItsCodec: what was chosen for a move that comes to nothing is shown
// as well, at both ends.
func TestAbortedMoveTellsItsCodec(t *testing.T) {
	t.Parallel()
	a, b, ledger := newPair(t, hvtest.Guest{Memory: 8 << 20, Rounds: -1})
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Rate: 20e6})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a part of the memory", func() (int64, bool) {
		j, err := a.g.Job(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		return j.Progress.WireBytes, j.Progress.WireBytes > 1<<20
	})
	if _, err := a.g.AbortJob(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	end := a.wait(j.ID)
	if end.State != gateway.JobAborted || end.Report != nil {
		t.Fatalf("job: %s: %s, report %v", end.State, end.Error, end.Report)
	}
	ledger.Check(t, "db1", "host-a")
	var logical, wire int64
	for _, part := range end.Progress.Codecs {
		t.Logf("%+v", part)
		logical, wire = logical+part.LogicalBytes, wire+part.WireBytes
	}
	if p := end.Progress; wire < 1<<20 || logical < wire || logical > p.LogicalBytes {
		t.Errorf("the parts add up to %d bytes as %d, the progress says %d as %d", logical, wire, p.LogicalBytes, p.WireBytes)
	}
	checkTotals(t, a, end.Progress.Codecs)
	var told int64
	far := b.wait(j.ID)
	for _, part := range far.Progress.Codecs {
		told += part.WireBytes
	}
	if far.State != gateway.JobAborted || told < 1<<20 || told > wire { // it was told while the last batches were made
		t.Errorf("the destination, whose job is %s, does not tell of it: %+v", far.State, far.Progress.Codecs)
	}
}
