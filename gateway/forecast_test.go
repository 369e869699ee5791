package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

func TestForecast(t *testing.T) {
	const MiB = 1 << 20
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		s    sample
		want forecast
	}{
		{"nothing known", sample{Remaining: MiB}, forecast{untold, untold, untold}},
		{"idle guest", sample{Remaining: 110 * MiB, Rate: 100 * MiB, Limit: 100 * ms, RTT: 60 * ms},
			forecast{time.Second, time.Second, 190*ms + orders}},
		{"half of the rate is dirtied", sample{Remaining: 110 * MiB, Rate: 100 * MiB, DirtyRate: 50 * MiB, Limit: 100 * ms},
			forecast{time.Second, 2 * time.Second, 100*ms + orders}},
		{"does not converge", sample{Remaining: 110 * MiB, Rate: 100 * MiB, DirtyRate: 100 * MiB, Limit: 100 * ms},
			forecast{time.Second, untold, 100*ms + orders}},
		{"less is left than the limit allows", sample{Remaining: 5 * MiB, Rate: 100 * MiB, Limit: 100 * ms},
			forecast{0, 0, 50*ms + orders}},
		{"a backlog comes first", sample{Remaining: 0, Rate: 100 * MiB, Limit: 100 * ms, Drain: 200 * ms, RTT: 60 * ms},
			forecast{0, 0, 230*ms + orders}},
	} {
		if got := c.s.forecast(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestLastPages(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name              string
		asked, rtt, drain time.Duration
		rounds            int
		want              time.Duration
	}{
		{"short line", 300 * ms, 0, 0, 1, 260 * ms},
		{"long line", 300 * ms, 60 * ms, 0, 1, 170 * ms},
		{"long line with a backlog", 300 * ms, 60 * ms, 100 * ms, 2, 130 * ms},
		{"longer than was asked for", 300 * ms, 250 * ms, 0, 2, firstLimit},
		{"does not converge", 300 * ms, 250 * ms, 0, 9, 150 * ms},
		{"never converges", 300 * ms, 250 * ms, 0, 50, 300 * ms},
	} {
		if got := lastPages(c.asked, c.rtt, c.drain, c.rounds); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestBacklogLimit(t *testing.T) {
	const rate, rtt = 25_000_000, 60 * time.Millisecond // 200 Mbit/s
	b := lineBacklog()
	if got := b.limit(now{}); got != b.first {
		t.Errorf("before anything is known: %d, want %d", got, b.first)
	}
	if got, want := b.limit(now{most: rate, rtt: rtt}), int64(8_000_000); got != want {
		t.Errorf("a line of a known rate, at first: %d, want %d", got, want)
	}
	for range beginning {
		b.limit(now{})
	}
	if got, want := b.limit(now{rate, 0, 8_000_000, rtt, 1}), int64(8_000_000); got != want {
		t.Errorf("first round: %d, want %d", got, want)
	}
	if got, want := b.limit(now{rate, 0, 8_000_000, rtt, 2}), int64(4_000_000); got != want {
		t.Errorf("later: %d, want %d", got, want)
	}
	for range 1000 {
		b.limit(now{1000, 0, 0, rtt, 2})
	}
	if got, want := b.limit(now{1000, 0, 0, rtt, 2}), int64(4_000_000); got != want {
		t.Errorf("after a source that had little to send: %d, want %d", got, want)
	}
	if got, want := b.drain(5_000_000), 200*time.Millisecond; got != want {
		t.Errorf("5 MB drain in %v, want %v", got, want)
	}
	for range 1000 {
		b.limit(now{1000, rate, 4_000_000, rtt, 2})
	}
	if got := b.limit(now{1000, rate, 4_000_000, rtt, 2}); got != b.least {
		t.Errorf("on a line that has become slow: %d, want %d", got, b.least)
	}
	if got := b.limit(now{1 << 40, 0, b.most, time.Second, 1}); got != b.most {
		t.Errorf("on an endless line: %d, want %d", got, b.most)
	}
}

func TestMeter(t *testing.T) {
	var m meter
	if m.logical() != 0 || m.wire() != 0 {
		t.Error("a rate from nothing")
	}
	at := time.Unix(1000, 0)
	for i := range 20 {
		n := int64(i)
		m.add(meterSample{at.Add(time.Duration(i) * 250 * time.Millisecond), n * 1000, n * 100, n * 90, max(n-15, 0) * 30})
	}
	if m.logical() != 4000 || m.wire() != 400 {
		t.Errorf("rates %d and %d, want 4000 and 400", m.logical(), m.wire())
	}
	if got := m.cheap(); got < 0.8095 || got > 0.8096 { // 4 x 30 of 7 x 90 went over other paths
		t.Errorf("over the paths that cost least: %v", got)
	}
}

func TestSentQueue(t *testing.T) {
	var q sentQueue
	if batch, raw := q.upTo(5); batch != 0 || raw != 0 {
		t.Errorf("nothing was sent, and batch %d with %d bytes is acknowledged", batch, raw)
	}
	for _, p := range []parcel{{batch: &dedup.Batch{Seq: 1, Raw: 10}}, {seal: []place{}}, {batch: &dedup.Batch{Seq: 2, Raw: 5}}} {
		q.put(p)
	}
	for _, c := range []struct{ seq, batch, raw uint64 }{{2, 1, 10}, {2, 0, 0}, {3, 2, 5}, {9, 0, 0}} {
		if batch, raw := q.upTo(c.seq); batch != c.batch || raw != int64(c.raw) {
			t.Errorf("message %d: batch %d, %d bytes; want %d, %d", c.seq, batch, raw, c.batch, c.raw)
		}
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow()
		if err := w.take(t.Context(), 1<<40); err != nil { // before anything is known there is no limit
			t.Fatal(err)
		}
		w.release(1 << 40)
		w.set(100)
		for range 2 { // the last may go over
			if err := w.take(t.Context(), 60); err != nil {
				t.Fatal(err)
			}
		}
		taken := make(chan error, 1)
		go func() { taken <- w.take(t.Context(), 60) }()
		synctest.Wait()
		select {
		case err := <-taken:
			t.Fatalf("taken beyond the limit: %v", err)
		default:
		}
		w.release(60)
		if err := <-taken; err != nil || w.onTheWay() != 120 {
			t.Errorf("after a release: %v, %d on the way", err, w.onTheWay())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.take(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("taking with a context that is done: %v", err)
		}
	})
}

func TestLower(t *testing.T) {
	for _, c := range [][3]int64{{0, 0, 0}, {5, 0, 5}, {0, 5, 5}, {5, 7, 5}, {7, 5, 5}} {
		if got := lower(c[0], c[1]); got != c[2] {
			t.Errorf("the lower cap of %d and %d: %d, want %d", c[0], c[1], got, c[2])
		}
	}
}
