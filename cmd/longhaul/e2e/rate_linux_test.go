package e2e

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/gateway"
)

const (
	rateError  = 0.05                   // share of the cap that any second may be off
	rateSettle = time.Second            // from a new cap to the first second that counts
	rateWatch  = 4 * time.Second        // how long each cap is watched
	rateSample = 100 * time.Millisecond // between looks at the counters
	rateTries  = 5                      // a busy machine may spoil a try
)

// TestSetRate caps a running move, and then its link, on a line that could
// carry more: over any second, the bytes on the wire are the cap's.
func TestSetRate(t *testing.T) {
	b := newBed(t, bedOptions{
		link: lab.Link{Rate: 200e6, RTT: 20 * time.Millisecond},
		// So much that the move never ends, and always has something to send: what can be
		// reduced is reduced further on a thin line, though that may take longer than the
		// cap does, by a fifth and more.
		dirty: control.Dirty{Rate: 6000, Hot: 6000, Sparse: 0, Disk: 5}, fill: 60, hard: true,
		extra: func(*lab.Site) string { return "store:\n  memory: 8MiB\n  disk: 8MiB\n" },
	})
	from := b.at
	api := b.pair.API(from)
	j, err := api.Migrate(t.Context(), gateway.MigrateRequest{VM: vmName, To: b.other().Name, Rate: 20e6, Downtime: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.holds(t, "job begun with --rate", 20e6)
	for _, rate := range []int64{50e6, 20e6} {
		if _, err := api.SetJobRate(t.Context(), j.ID, rate); err != nil {
			t.Fatal(err)
		}
		b.holds(t, "job set-rate", rate)
	}
	b.setLinkRate(t, from, 30e6)
	if _, err := api.SetJobRate(t.Context(), j.ID, 0); err != nil {
		t.Fatal(err)
	}
	b.holds(t, "link.rate after a reload", 30e6)
	if _, err := api.AbortJob(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	b.settled(t, j.ID)
	b.executesAt(t, from)
	if err := b.ask.SetDirty(t.Context(), control.Dirty{}); err != nil {
		t.Fatal(err)
	}
	b.verify(t)
}

// setLinkRate writes another link.rate into the config of a site and has the
// gateway read it again, as systemctl reload does.
func (b *bed) setLinkRate(t *testing.T, s *lab.Site, rate int64) {
	t.Helper()
	b.pair.Rate = rate
	if err := os.WriteFile(filepath.Join(s.Dir, "longhauld.yaml"), b.pair.Config(s), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.pair.Process(s).Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	poll(t, t.Context(), func() error {
		st, err := b.pair.API(s).Status(t.Context())
		if err == nil && (len(st.Peers) != 1 || st.Peers[0].Rate != rate) {
			err = fmt.Errorf("the cap of the link is %+v; want %d", st.Peers, rate)
		}
		return err
	})
}

// holds checks that from soon on, every second carries what the cap permits.
func (b *bed) holds(t *testing.T, what string, rate int64) {
	t.Helper()
	var err error
	for range rateTries {
		var low, high float64
		if low, high, err = b.seconds(t, what); err != nil {
			continue
		}
		low, high = low/float64(rate)-1, high/float64(rate)-1
		t.Logf("%s, %d bit/s: seconds are off by %+.2f%% to %+.2f%%", what, rate, 100*low, 100*high)
		if math.Max(math.Abs(low), math.Abs(high)) <= rateError {
			return
		}
		err = fmt.Errorf("%s: with a cap of %d bit/s, seconds are off by %+.1f%% to %+.1f%%", what, rate, 100*low, 100*high)
	}
	t.Error(err)
}

// sample is a look at the counters of the WAN.
type sample struct {
	at    time.Time
	bytes int64
}

// seconds finds the least and the most bits per second that the direction from
// the guest's site has carried, over all the seconds of a while.
func (b *bed) seconds(t *testing.T, what string) (low, high float64, err error) {
	t.Helper()
	tick := time.NewTicker(rateSample)
	defer tick.Stop()
	begin := time.Now()
	var samples []sample
	low = math.Inf(1)
	for now := range tick.C {
		if now.Sub(begin) < rateSettle {
			continue
		}
		c, err := b.lab.WAN.Counters(wanem.AB)
		if err != nil {
			t.Fatal(err)
		}
		s := sample{time.Now(), c.Sum(lab.PortFlow(wanem.UDP, pair.LinkPort)).Bytes}
		for i := len(samples) - 1; i >= 0; i-- { // the latest that is a second ago
			if over := s.at.Sub(samples[i].at); over >= time.Second {
				rate := 8 * float64(s.bytes-samples[i].bytes) / over.Seconds()
				low, high = min(low, rate), max(high, rate)
				break
			}
		}
		samples = append(samples, s)
		if now.Sub(begin) > rateSettle+rateWatch {
			break
		}
	}
	if high == 0 {
		return 0, 0, errors.New(what + ": no second was seen")
	}
	return low, high, nil
}
