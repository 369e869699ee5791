package e2e

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// TestRetryIsCheap: a move that was cancelled when its memory had crossed, or that failed
// because both gateways were killed then, starts again and sends references for what the
// other site has.
func TestRetryIsCheap(t *testing.T) {
	for _, tt := range []struct {
		name     string
		channels int
		end      func(t *testing.T, b *bed, id string)
		lost     func(gateway.Job) int64 // bytes that may cross again, beyond 3 per cent
		want     gateway.JobState
	}{
		{"cancelled", 0, func(t *testing.T, b *bed, id string) { b.cancel(t, id) }, nothing, gateway.JobAborted},
		{"cancelled with multifd", 2, func(t *testing.T, b *bed, id string) { b.cancel(t, id) }, nothing, gateway.JobAborted},
		{"killed", 0, func(t *testing.T, b *bed, _ string) { b.killGateways(t, b.sites()) }, unsaved, gateway.JobFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, bedOptions{
				link:  lab.Link{Rate: 100e6, RTT: 40 * time.Millisecond},
				hard:  true, // so that what crosses twice is seen
				dirty: control.Dirty{Rate: 1000, Hot: 400, Sparse: 100},
			})
			whole := phase{"a third round", func(src, _ gateway.Job) bool { return src.Progress.Rounds >= 3 }}
			id := b.moveUntil(t, whole, gateway.MigrateRequest{Downtime: 1, Channels: tt.channels}) // for which the guest writes too much
			first := b.job(t, id)
			tt.end(t, b, id)
			b.settled(t, id)
			if j := b.job(t, id); j.State != tt.want {
				t.Fatalf("the first move is %s: %s", j.State, j.Error)
			}
			b.executesAt(t, b.at)
			// What the guest writes in the rounds of the next move is none that crosses again.
			if err := b.ask.SetDirty(t.Context(), control.Dirty{}); err != nil {
				t.Fatal(err)
			}
			again := b.move(t, gateway.MigrateRequest{})
			b.verify(t)
			most := first.Progress.WireBytes*3/100 + tt.lost(first)
			t.Logf("%d bytes crossed at first, %d in the next move, %d at most", first.Progress.WireBytes, again.Report.WireBytes, most)
			if again.Report.WireBytes > most {
				t.Errorf("%d bytes crossed again, want %d at most", again.Report.WireBytes, most)
			}
		})
	}
}

// nothing is lost by a move that is cancelled: what is on its way arrives before it ends.
func nothing(gateway.Job) int64 { return 0 }

// unsaved is what the end of both gateways may cost: what the source has not heard of, and
// segments of the store that are not full and so not on disk yet.
func unsaved(j gateway.Job) int64 { return j.Progress.Backlog + 2<<20 }

// cancel aborts a move.
func (b *bed) cancel(t *testing.T, id string) {
	t.Helper()
	if _, err := b.pair.API(b.at).AbortJob(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// job is what the source says of a move.
func (b *bed) job(t *testing.T, id string) gateway.Job {
	t.Helper()
	j, err := b.pair.API(b.at).Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}
