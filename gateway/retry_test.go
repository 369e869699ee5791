package gateway_test

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// TestRetryIsCheap: what crossed in a move that failed, or was cancelled, goes as references
// in the next one.
func TestRetryIsCheap(t *testing.T) {
	t.Parallel()
	guest := hvtest.Guest{Memory: 32 << 20, Dirty: 1, Rounds: 8, Pace: 300 * time.Millisecond}
	const most = 20 << 20 // of its stream, of which a quarter is noise
	a, _, _ := newPair(t, guest)
	whole := a.migrate("b")
	for _, tt := range []struct {
		name string
		try  func(t *testing.T, a *site) gateway.Job
		want gateway.JobState
	}{
		{"failed", func(_ *testing.T, a *site) gateway.Job {
			a.host.BreakLeg(most)
			j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Rate: 40_000_000})
			if err != nil {
				t.Fatal(err)
			}
			return a.wait(j.ID)
		}, gateway.JobFailed},
		{"cancelled", func(t *testing.T, a *site) gateway.Job {
			j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"})
			if err != nil {
				t.Fatal(err)
			}
			until(t, "most has crossed", func() bool {
				j, err := a.g.Job(t.Context(), j.ID)
				return err == nil && j.Progress.LogicalBytes > most && j.Progress.Backlog == 0
			})
			if _, err := a.g.AbortJob(t.Context(), j.ID); err != nil {
				t.Fatal(err)
			}
			return a.wait(j.ID)
		}, gateway.JobAborted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, _, ledger := newPair(t, guest)
			first := tt.try(t, a)
			ledger.Check(t, "db1", "host-a")
			if first.State != tt.want {
				t.Fatalf("the first try is %s: %s", first.State, first.Error)
			}
			again := a.migrate("b")
			if again.State != gateway.JobDone {
				t.Fatalf("the next try is %s: %s", again.State, again.Error)
			}
			ledger.Check(t, "db1", "host-b")
			// What was on its way had not been acknowledged. How well the rest is compressed follows the processors.
			left := max(whole.Progress.LogicalBytes-first.Progress.LogicalBytes, 0)
			rest := 1.5 * float64(whole.Progress.WireBytes) * float64(left) / float64(whole.Progress.LogicalBytes)
			if tt.want == gateway.JobFailed {
				rest += float64(first.Progress.BacklogMax + 1<<20) // and two batches
			}
			bound := rest + 0.03*float64(whole.Progress.WireBytes)
			t.Logf("%d bytes crossed at first, %d then, %.0f at most; %d at once", first.Progress.WireBytes, again.Progress.WireBytes, bound, whole.Progress.WireBytes)
			if float64(again.Progress.WireBytes) > bound {
				t.Errorf("%d bytes crossed, want %.0f at most, for most had crossed before", again.Progress.WireBytes, bound)
			}
		})
	}
}
