package tunnel

import (
	"context"
	"testing"
	"time"
)

// TestFlowClasses: classes share a line by their weights, however many flows each
// has, and what one does not use the others get.
func TestFlowClasses(t *testing.T) {
	t.Parallel()
	line := lineFast
	line.Rate = 1_250_000
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		link := l.a.Link("b")
		link.SetRate(1_000_000)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		memory, seed := link.NewFlow("memory"), link.NewBackgroundFlow("seed")
		disks := []*Flow{link.NewDiskFlow("disk 1"), link.NewDiskFlow("disk 2")}
		last := link.NewFlow("last")
		start := func(fs ...*Flow) {
			for _, f := range fs {
				from, to := l.open(Spec{Flow: f})
				flood(ctx, from, to, 50_000)
			}
			time.Sleep(time.Second)
		}
		var was [flowClasses]int64
		share := func(after time.Duration) (got [flowClasses]float64) {
			t.Helper()
			for _, x := range link.State().Flows {
				was[x.Class] = x.Sent
			}
			time.Sleep(after)
			for _, x := range link.State().Flows {
				got[x.Class] = float64(x.Sent-was[x.Class]) / after.Seconds()
			}
			return got
		}
		start(disks...)
		got := share(2 * time.Second)
		within(t, "disks alone", got[DiskFlow], 1_000_000)
		start(memory, seed)
		first := [2]int64{disks[0].WireSent(), disks[1].WireSent()}
		got = share(8 * time.Second)
		within(t, "memory", got[MemoryFlow], 1_000_000*64/81)
		within(t, "two disks", got[DiskFlow], 1_000_000*16/81)
		if got[SeedFlow] > 1_000_000*2/81 || got[SeedFlow] == 0 {
			t.Errorf("seed got %.0f", got[SeedFlow])
		}
		within(t, "one of two disks", float64(disks[0].WireSent()-first[0]), float64(disks[1].WireSent()-first[1]))
		if err := l.a.SetWeights(Weights{Memory: 1, Disk: 1, Seed: 2}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		got = share(4 * time.Second)
		within(t, "seed of weight 2", got[SeedFlow], 500_000)
		within(t, "memory of weight 1", got[MemoryFlow], 250_000)
		last.SetTail(true)
		start(last)
		got = share(4 * time.Second)
		within(t, "the tail", got[TailFlow], 1_000_000)
		var all int64
		for _, x := range link.State().Flows {
			all += x.Sent
		}
		within(t, "all classes, of what bulk has used", float64(all), float64(link.State().ByClass[0].Sent))
	})
}

func TestWeights(t *testing.T) {
	if w := (Weights{}).WithDefaults(); w != (Weights{2048, 64, 16, 1}) {
		t.Errorf("defaults %+v", w)
	}
	n, err := New(config("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []Weights{{Disk: -1}, {Seed: MaxWeight + 1}} {
		if n.SetWeights(w) == nil {
			t.Errorf("%+v is taken", w)
		}
		c := config("a", nil)
		c.Weights = w
		if _, err := New(c); err == nil {
			t.Errorf("a config with %+v is taken", w)
		}
	}
}

// TestTurnGoesOn: the times of the classes are begun anew before they overflow,
// and it makes no difference, to those that send and to one that lay idle.
func TestTurnGoesOn(t *testing.T) {
	w := Weights{}.WithDefaults()
	var q turn
	a, b := &Flow{of: MemoryFlow}, &Flow{of: SeedFlow}
	q.join(a, Bulk, true)
	q.join(b, Bulk, true)
	had := map[*Flow]int64{}
	for range 1_000_000 {
		f := a
		if q.before(b, a, Bulk) < 0 {
			f = b
		}
		had[f] += 1 << 34
		q.served(f, Bulk, 1<<34, w)
		if q.now < 0 || q.now > turnMost+1<<51 {
			t.Fatalf("time %d", q.now)
		}
	}
	if r := float64(had[a]) / float64(had[b]); r < 63 || r > 65 {
		t.Errorf("%.2f to 1", r)
	}
	c := &Flow{of: DiskFlow}
	q.join(c, Bulk, true)
	if wait := q.classes[DiskFlow] - q.now; wait < 0 || wait > q.classes[SeedFlow]-q.now {
		t.Errorf("a class that lay idle stands at %d; seed at %d, now %d", q.classes[DiskFlow], q.classes[SeedFlow], q.now)
	}
}

// TestTurnResumes: a class that had nothing to send, for a moment or until the
// times of the others were begun anew many times, has its weight again when it
// resumes, and makes up for nothing.
func TestTurnResumes(t *testing.T) {
	w := Weights{}.WithDefaults()
	var q turn
	disk, seed := &Flow{of: DiskFlow}, &Flow{of: SeedFlow}
	const n = 1 << 34
	const renewed = turnMost / (n * turnScale) // of seed until the times are begun anew
	q.join(seed, Bulk, true)
	for _, pause := range []int{0, 10, renewed, 3 * renewed, 9 * renewed, 12 * renewed, 17 * renewed} {
		for range pause {
			q.served(seed, Bulk, n, w)
		}
		q.join(disk, Bulk, true)
		had := map[*Flow]int{}
		for range 17 * 100 {
			f := disk
			if q.before(seed, disk, Bulk) < 0 {
				f = seed
			}
			had[f]++
			q.served(f, Bulk, n, w)
		}
		if had[disk] < 1590 || had[disk] > 1610 || had[seed] < 90 {
			t.Errorf("after a pause of %d turns of seed, disk has %d turns and seed %d of 1700; want 16 to 1", pause, had[disk], had[seed])
		}
	}
}
