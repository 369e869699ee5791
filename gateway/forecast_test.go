package gateway

import (
	"testing"
	"time"
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
			forecast{time.Second, time.Second, 190 * ms}},
		{"half of the rate is dirtied", sample{Remaining: 110 * MiB, Rate: 100 * MiB, DirtyRate: 50 * MiB, Limit: 100 * ms},
			forecast{time.Second, 2 * time.Second, 100 * ms}},
		{"does not converge", sample{Remaining: 110 * MiB, Rate: 100 * MiB, DirtyRate: 100 * MiB, Limit: 100 * ms},
			forecast{time.Second, untold, 100 * ms}},
		{"less is left than the limit allows", sample{Remaining: 5 * MiB, Rate: 100 * MiB, Limit: 100 * ms},
			forecast{0, 0, 50 * ms}},
		{"a backlog comes first", sample{Remaining: 0, Rate: 100 * MiB, Limit: 100 * ms, Backlog: 5 * MiB, Goodput: 25 * MiB},
			forecast{0, 0, 200 * ms}},
	} {
		if got := c.s.forecast(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestLastPages(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name             string
		asked, rtt       time.Duration
		backlog, goodput int64
		rounds           int
		want             time.Duration
	}{
		{"short line", 300 * ms, 0, 0, 0, 1, 260 * ms},
		{"long line", 300 * ms, 60 * ms, 0, 0, 1, 170 * ms},
		{"long line with a backlog", 300 * ms, 60 * ms, 2_000_000, 20_000_000, 2, 130 * ms},
		{"longer than was asked for", 300 * ms, 250 * ms, 0, 0, 2, firstLimit},
		{"does not converge", 300 * ms, 250 * ms, 0, 0, 9, 150 * ms},
		{"never converges", 300 * ms, 250 * ms, 0, 0, 50, 300 * ms},
	} {
		if got := lastPages(c.asked, c.rtt, c.backlog, c.goodput, c.rounds); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestBacklogLimit(t *testing.T) {
	const rate, rtt = 25_000_000, 60 * time.Millisecond // 200 Mbit/s
	var b backlog
	if got := b.limit(0, 0, 0, 0); got != firstBacklog {
		t.Errorf("before anything is known: %d, want %d", got, firstBacklog)
	}
	if got, want := b.limit(rate, firstBacklog, rtt, 1), int64(8_000_000); got != want {
		t.Errorf("first round: %d, want %d", got, want)
	}
	if got, want := b.limit(rate, 8_000_000, rtt, 2), int64(4_000_000); got != want {
		t.Errorf("later: %d, want %d", got, want)
	}
	for range 1000 {
		b.limit(1000, 0, rtt, 2)
	}
	if got, want := b.limit(1000, 0, rtt, 2), int64(4_000_000); got != want {
		t.Errorf("after a source that had little to send: %d, want %d", got, want)
	}
	for range 1000 {
		b.limit(1000, 4_000_000, rtt, 2)
	}
	if got := b.limit(1000, 4_000_000, rtt, 2); got != minBacklog {
		t.Errorf("on a line that has become slow: %d, want %d", got, minBacklog)
	}
	if got := b.limit(1<<40, maxBacklog, time.Second, 1); got != maxBacklog {
		t.Errorf("on an endless line: %d, want %d", got, maxBacklog)
	}
}

func TestMeter(t *testing.T) {
	var m meter
	if m.logical() != 0 || m.wire() != 0 {
		t.Error("a rate from nothing")
	}
	at := time.Unix(1000, 0)
	for i := range 20 {
		m.add(at.Add(time.Duration(i)*250*time.Millisecond), int64(i)*1000, int64(i)*100)
	}
	if m.logical() != 4000 || m.wire() != 400 {
		t.Errorf("rates %d and %d, want 4000 and 400", m.logical(), m.wire())
	}
}

func TestSentQueue(t *testing.T) {
	var q sentQueue
	if got := q.upTo(5); got != 0 {
		t.Errorf("nothing was sent, and batch %d is acknowledged", got)
	}
}
