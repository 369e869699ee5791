package wanem

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"time"
)

const ms = time.Millisecond

// arrive hands l a frame of n bytes that carries number id.
func arrive(l *Line, now time.Duration, id uint32, n int) {
	b := l.Buffer()[:n]
	clear(b)
	binary.BigEndian.PutUint32(b[etherLen:], id)
	l.Arrive(now, b, 0)
}

// arrival is a delivery as tests compare it.
type arrival struct {
	at time.Duration
	id uint32
}

// run delivers everything under way, each frame when it is due, up to until.
func run(t *testing.T, l *Line, until time.Duration) (got []arrival) {
	t.Helper()
	for {
		at, ok := l.Next()
		if !ok || at > until {
			return got
		}
		b, off, ok := l.Deliver(at)
		for ; ok; b, off, ok = l.Deliver(at) {
			got = append(got, arrival{at, binary.BigEndian.Uint32(b[off+etherLen:])})
			l.Recycle(b)
		}
		if next, ok := l.Next(); ok && next <= at {
			t.Fatalf("at %v the next is due at %v, but is not delivered", at, next)
		}
	}
}

// TestLine: exact times, for what is not random.
func TestLine(t *testing.T) {
	tests := []struct {
		name  string
		p     Profile
		times []time.Duration // arrivals of frames of 1000 bytes, numbered from 0
		want  []arrival
	}{
		{"perfect", Profile{}, []time.Duration{0, ms}, []arrival{{0, 0}, {ms, 1}}},
		{"delay", Profile{Delay: 30 * ms}, []time.Duration{0, ms}, []arrival{{30 * ms, 0}, {31 * ms, 1}}},
		// 8 Mbit/s: 1000 bytes take 1 ms.
		{"rate, back to back", Profile{Rate: 8e6, Delay: 10 * ms}, []time.Duration{0, 0, 0}, []arrival{{11 * ms, 0}, {12 * ms, 1}, {13 * ms, 2}}},
		{"rate, idle between", Profile{Rate: 8e6}, []time.Duration{0, 5 * ms}, []arrival{{1 * ms, 0}, {6 * ms, 1}}},
		{"rate, partly idle", Profile{Rate: 8e6}, []time.Duration{0, ms / 2, 5 * ms}, []arrival{{1 * ms, 0}, {2 * ms, 1}, {6 * ms, 2}}},
		{"queue of two", Profile{Rate: 8e6, Queue: 2000}, []time.Duration{0, 0, 0, ms, 3 * ms}, []arrival{{1 * ms, 0}, {2 * ms, 1}, {3 * ms, 3}, {4 * ms, 4}}},
		{"all lost", Profile{Loss: 1}, []time.Duration{0, 1}, nil},
		{"all twice", Profile{Duplicate: 1, Delay: ms}, []time.Duration{0, 0}, []arrival{{ms, 0}, {ms, 0}, {ms, 1}, {ms, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLine(tt.p, 1, 2000)
			for id, at := range tt.times {
				arrive(l, at, uint32(id), 1000)
			}
			got := run(t, l, time.Hour)
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("delivered %v, want %v", got, tt.want)
			}
			balance(t, l)
		})
	}
}

// balance checks that every packet is accounted for, once.
func balance(t *testing.T, l *Line) {
	t.Helper()
	c := l.Counters()
	in := c.In.Add(c.Duplicated)
	out := c.Out.Add(c.Lost).Add(c.Full).Add(c.Cut).Add(c.Refused)
	under := c.Flying + int64(l.queue.len())
	if in.Packets != out.Packets+under || under == 0 && in.Bytes != out.Bytes {
		t.Errorf("in and copies %+v, out and dropped %+v, under way %d", in, out, under)
	}
	var flows Count
	for _, n := range c.Flows {
		flows = flows.Add(n)
	}
	if flows != c.In {
		t.Errorf("flows sum to %+v of %+v", flows, c.In)
	}
	if held := int(under) * l.size; l.held != held {
		t.Errorf("%d bytes of buffers in use, want %d", l.held, held)
	}
}

// TestSet: what waits goes on at the new rate, what flies keeps its time, and
// a shorter delay overtakes nobody.
func TestSet(t *testing.T) {
	l := NewLine(Profile{Rate: 8e6, Delay: 100 * ms}, 1, 2000)
	for id := range uint32(3) {
		arrive(l, 0, id, 1000)
	}
	l.Set(ms+ms/2, Profile{Rate: 4e6, Delay: 10 * ms}) // half of frame 1 is left: 1 ms more
	got := run(t, l, time.Hour)
	want := []arrival{{101 * ms, 0}, {101 * ms, 1}, {101 * ms, 2}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
	l.Set(200*ms, Profile{Rate: 8e6})
	arrive(l, 200*ms, 3, 1000)
	arrive(l, 200*ms, 4, 1000)
	l.Set(200*ms, Profile{}) // no rate: what waits leaves at once
	if got, want := run(t, l, time.Hour), []arrival{{200 * ms, 3}, {200 * ms, 4}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
	balance(t, l)
}

// TestRateFalls: the time that is left of a frame stretches with the rate.
func TestRateFalls(t *testing.T) {
	l := NewLine(Profile{Rate: 8e6}, 1, 2000)
	arrive(l, 0, 0, 1000)
	arrive(l, 0, 1, 1000)
	l.Set(ms/2, Profile{Rate: 8e5}) // half a frame is left: 5 ms; then 10 ms
	if got, want := run(t, l, time.Hour), []arrival{{5*ms + ms/2, 0}, {15*ms + ms/2, 1}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
}

// TestCut: what waits and flies is lost, what comes meanwhile too, and after
// the heal all is as before.
func TestCut(t *testing.T) {
	l := NewLine(Profile{Rate: 8e6, Delay: 10 * ms}, 1, 2000)
	for id := range uint32(4) {
		arrive(l, 0, id, 1000)
	}
	l.Cut(2 * ms) // two fly, two wait
	arrive(l, 5*ms, 4, 1000)
	l.Heal()
	arrive(l, 20*ms, 5, 1000)
	if got, want := run(t, l, time.Hour), []arrival{{31 * ms, 5}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
	if c := l.Counters(); c.Cut.Packets != 5 || c.Out.Packets != 1 {
		t.Errorf("%+v; want 5 cut, 1 out", c)
	}
	balance(t, l)
}

// TestChances: over many packets, each share is what was asked for, and the
// same seed gives the same fate.
func TestChances(t *testing.T) {
	const n = 200_000
	p := Profile{Delay: 10 * ms, Jitter: 4 * ms, Loss: 0.02, Burst: 5, Reorder: 0.03, Duplicate: 0.01}
	fate := func(seed uint64) (got []arrival, l *Line) {
		l = NewLine(p, seed, 128)
		for id := range uint32(n) {
			now := time.Duration(id) * 100 * time.Microsecond
			got = append(got, run(t, l, now)...)
			arrive(l, now, id, 64)
		}
		return append(got, run(t, l, time.Hour)...), l
	}
	got, l := fate(1)
	c := l.Counters()
	balance(t, l)
	near(t, "lost", float64(c.Lost.Packets)/n, p.Loss, 0.15) // bursts spread more than single losses
	near(t, "reordered", float64(c.Reordered.Packets)/float64(n-c.Lost.Packets), p.Reorder, 0.05)
	near(t, "duplicated", float64(c.Duplicated.Packets)/float64(n-c.Lost.Packets), p.Duplicate, 0.1)
	near(t, "mean burst", meanBurst(got, n), p.Burst, 0.1)
	var late int
	for i, a := range got {
		if d := a.at - time.Duration(a.id)*100*time.Microsecond; d < p.Delay || d > p.Delay+p.Jitter+p.late()+ms {
			t.Fatalf("frame %d took %v", a.id, d)
		}
		if i > 0 && a.id < got[i-1].id {
			late++
		}
	}
	if late == 0 || float64(late) > 1.2*float64(c.Reordered.Packets+c.Duplicated.Packets) {
		t.Errorf("%d frames came after a later one; %d were reordered", late, c.Reordered.Packets)
	}
	if again, _ := fate(1); fmt.Sprint(again[:5000]) != fmt.Sprint(got[:5000]) {
		t.Error("the same seed gives another fate")
	}
	if other, _ := fate(2); fmt.Sprint(other[:5000]) == fmt.Sprint(got[:5000]) {
		t.Error("another seed gives the same fate")
	}
}

func near(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if math.Abs(got-want) > by*want {
		t.Errorf("%s is %.4f, want %.4f within %.0f %%", what, got, want, 100*by)
	}
}

// meanBurst is the mean length of runs of numbers below n that did not come.
func meanBurst(got []arrival, n int) float64 {
	seen := make([]bool, n)
	for _, a := range got {
		seen[a.id] = true
	}
	var bursts, lost float64
	for i, s := range seen {
		if !s {
			lost++
			if i == 0 || seen[i-1] {
				bursts++
			}
		}
	}
	return lost / bursts
}

// TestJitterKeepsOrder: jitter alone never reorders.
func TestJitterKeepsOrder(t *testing.T) {
	l := NewLine(Profile{Delay: ms, Jitter: 20 * ms}, 3, 128)
	for id := range uint32(10_000) {
		arrive(l, time.Duration(id)*10*time.Microsecond, id, 64)
	}
	for i, a := range run(t, l, time.Hour) {
		if a.id != uint32(i) {
			t.Fatalf("delivery %d is frame %d", i, a.id)
		}
	}
}

// TestThroughput: a full queue never lets the bottleneck idle, however late
// the caller comes.
func TestThroughput(t *testing.T) {
	l := NewLine(Profile{Rate: 1e9, Delay: 5 * ms}, 1, 2000)
	var id uint32
	for now := time.Duration(0); now < time.Second; now += 3 * ms { // late by 3 ms each time
		for b, _, ok := l.Deliver(now); ok; b, _, ok = l.Deliver(now) {
			l.Recycle(b)
		}
		for range 300 { // 3 ms of 1 Gbit/s are 250 frames
			arrive(l, now, id, 1500)
			id++
		}
	}
	got := float64(l.Counters().Out.Bytes) * 8
	near(t, "rate", got, 1e9*(1-0.008), 0.005) // 5 ms of flight and 3 ms of step are still out
}

// TestBounded: a line without a rate holds no more than MaxHeld.
func TestBounded(t *testing.T) {
	const size = 64 << 10
	l := NewLine(Profile{Delay: time.Hour}, 1, size)
	for n := 0; ; n++ {
		b := l.Buffer()
		if b == nil {
			if n != MaxHeld/size {
				t.Errorf("%d buffers of %d bytes, want %d", n, size, MaxHeld/size)
			}
			return
		}
		l.Arrive(0, b[:60], 0)
	}
}

func TestProfileCheck(t *testing.T) {
	for _, p := range []Profile{{Loss: -1}, {Loss: 1.1}, {Loss: math.NaN()}, {Rate: -1}, {Delay: -1}, {Queue: -1}, {Burst: -1}, {Reorder: 2}, {Duplicate: -0.1}, {Jitter: -1}, {Burst: math.NaN()}} {
		if p.Check() == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
	if err := (Profile{Rate: 1e9, Delay: 30 * ms, Loss: 1, Burst: 10}).Check(); err != nil {
		t.Error(err)
	}
	if got := (Profile{Rate: 200e6, Delay: 30 * ms}).queue(); got != 1_500_000 {
		t.Errorf("queue of 200 Mbit/s and 60 ms is %d bytes, want one BDP, 1500000", got)
	}
	if got := (Profile{Rate: 1e6}).queue(); got != MinQueue {
		t.Errorf("queue of a line without delay is %d bytes, want %d", got, MinQueue)
	}
}

// BenchmarkLine is the model alone: a frame in and out of a line of 500 Mbit/s
// that is 95 % full.
func BenchmarkLine(b *testing.B) {
	l := NewLine(Profile{Rate: 500e6, Delay: 30 * ms, Loss: 0.0005, Jitter: ms}, 1, 1600)
	const n = 1514
	const step = n * 8 * time.Second / 475e6 // 95 % of the line
	var now time.Duration
	b.SetBytes(n)
	b.ReportAllocs()
	for b.Loop() {
		now += step
		buf := l.Buffer()
		if buf == nil {
			b.Fatal("no buffer")
		}
		l.Arrive(now, buf[:n], 0)
		for out, _, ok := l.Deliver(now); ok; out, _, ok = l.Deliver(now) {
			l.Recycle(out)
		}
	}
}
