package gateway_test

import (
	"strings"
	"testing"

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
			if far := b.wait(j.ID); far.Report == nil || len(far.Report.Codecs) != len(j.Report.Codecs) {
				t.Errorf("the destination does not tell of it: %+v", far.Report)
			}
		})
	}
}
