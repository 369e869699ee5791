package gateway

import (
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w stopwatch
		take := func(want time.Duration) {
			t.Helper()
			if got := w.take(); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		}
		time.Sleep(time.Second)
		take(0)
		w.enter()
		time.Sleep(time.Second)
		take(time.Second) // it still waits
		w.enter()
		time.Sleep(time.Second)
		w.leave()
		time.Sleep(time.Second)
		w.leave()
		time.Sleep(time.Second)
		take(3 * time.Second)
		take(0)
	})
}

func TestCPUClock(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("threads do not tell their time here")
	}
	var c cpuClock
	c.start()
	time.Sleep(50 * time.Millisecond) // of others, as far as the CPU is concerned
	c.stop()
	if got := c.take(); got < 0 || got > 25*time.Millisecond {
		t.Errorf("%v of CPU time for waiting 50 ms", got)
	}
	for range 2 {
		c.start()
		for from := threadTime(); threadTime()-from < 5*time.Millisecond; {
		}
		c.stop()
	}
	if got := c.take(); got < 10*time.Millisecond || got > 50*time.Millisecond {
		t.Errorf("%v of CPU time for two pieces of 5 ms", got)
	}
}

func TestCores(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the machine does not tell its time here")
	}
	var c cores
	now := time.Now()
	if got := c.load(now).idle; got >= 0 {
		t.Errorf("%v cores idle at the first look, which can tell nothing", got)
	}
	got := -1.0
	for deadline := now.Add(10 * time.Second); got < 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the machine counts in such ticks
		now = now.Add(lookEvery)
		got = c.load(now).idle
	}
	if got < 0 || got > float64(runtime.NumCPU()) {
		t.Errorf("%v cores of %d idle", got, runtime.NumCPU())
	}
	if again := c.load(now.Add(1)).idle; again != got {
		t.Errorf("looked again at once: %v, then %v", got, again)
	}
	a, b := &codecPace{s: &session{cores: &c}}, &codecPace{s: &session{cores: &c}}
	a.share(true)
	a.share(true)
	b.share(true)
	if n := c.sharers.Load(); n != 2 {
		t.Errorf("%d share the cores, want 2", n)
	}
	a.end()
	a.end()
	b.share(false)
	if n := c.sharers.Load(); n != 0 {
		t.Errorf("%d share the cores in the end", n)
	}
}

func TestEffortOfSetting(t *testing.T) {
	for e := range efforts {
		if got := effortOf(e.setting()); got != e {
			t.Errorf("%v becomes %v", e, got)
		}
	}
	if got := effortOf(dedup.Setting{}); got != firstEffort {
		t.Errorf("the zero setting is %v, want %v", got, firstEffort)
	}
}

// TestContentLearns: what is measured under one effort foretells the others, as
// far as stream and machine differ from the table by what content knows of.
func TestContentLearns(t *testing.T) {
	truth := scaled(2)
	truth.slow = 0.7
	truth.fresh, truth.found, truth.plain, truth.yields = 0.5, 0.2, 0.3, 1.4
	w := newWorld()
	w.content, w.noise = truth, 0
	c := newContent()
	under := effort{3, mostSearch}
	for range 100 {
		n := w.tick(under)
		n.works.each(func(e effort, w work) { c.learn(e, w, true) })
	}
	for e := range efforts {
		got, want := c.price(e), truth.price(e)
		if e.codec == 0 {
			got.parallel, want.parallel = 0, 0 // a copy is not compression: it is not taken for as slow
		}
		for _, v := range [][2]float64{{got.serial, want.serial}, {got.parallel, want.parallel}, {got.wire, want.wire}} {
			if math.Abs(v[0]-v[1]) > 0.03*v[1] {
				t.Errorf("%v: %+v, want %+v", e.setting(), got, want)
				break
			}
		}
	}
}
