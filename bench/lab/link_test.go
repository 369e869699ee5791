package lab

import (
	"testing"
	"time"
)

func TestParseLink(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		text string
		want Link
		said string // by String; empty means text
	}{
		{"rate=200Mbit,rtt=60ms,loss=0.05%", DefaultLink(), ""},
		{"rate=1Gbit", Link{Rate: 1e9, RTT: 60 * ms, Loss: 0.0005}, "rate=1Gbit,rtt=60ms,loss=0.05%"},
		{"rate=1.5Mbit/s,rtt=0s,loss=0", Link{Rate: 1500000}, "rate=1500kbit,rtt=0s,loss=0%"},
		{"rate=100M, rtt=1s, loss=0.01", Link{Rate: 100e6, RTT: time.Second, Loss: 0.01}, "rate=100Mbit,rtt=1s,loss=1%"},
		{"rate=0,rtt=2ms,loss=1%,jitter=3ms,burst=5,reorder=2%,duplicate=0.001,queue=64KiB",
			Link{0, 2 * ms, 3 * ms, 0.01, 5, 0.02, 0.001, 65536}, "rate=0bit,rtt=2ms,loss=1%,jitter=3ms,burst=5,reorder=0.02,duplicate=0.001,queue=65536"},
	}
	for _, tt := range tests {
		got, err := ParseLink(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
		said := tt.said
		if said == "" {
			said = tt.text
		}
		if got.String() != said {
			t.Errorf("%q is written %q, want %q", tt.text, got.String(), said)
		}
	}
	for _, bad := range []string{"", "rate", "rate=", "rate=-1", "rate=fast", "rtt=60", "rtt=-1ms", "loss=101%", "loss=NaN", "mtu=1500", "rate=1e300", "queue=-5", "rate=1Mbit,"} {
		l := DefaultLink()
		if err := l.Set(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, l)
		}
		if l != DefaultLink() {
			t.Errorf("%q is refused, but changed the link to %+v", bad, l)
		}
	}
}

// FuzzLink: what is accepted is possible, and is read again as it is written.
func FuzzLink(f *testing.F) {
	f.Add("rate=200Mbit,rtt=60ms,loss=0.05%")
	f.Add("jitter=1us,burst=2,reorder=1%,duplicate=0,queue=3MiB")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLink(text)
		if err != nil {
			return
		}
		if err := l.Profile().Check(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if again, err := ParseLink(l.String()); err != nil || again.Rate != l.Rate || again.RTT != l.RTT {
			t.Errorf("%q is written %q and read as %+v, %v", text, l.String(), again, err)
		}
	})
}

func TestGaps(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	var g gaps
	g.begin(at(0))
	for _, ms := range []int{10, 20, 80, 90, 290, 300} {
		g.arrived(at(ms))
	}
	if want := (Gap{at(90), 200 * time.Millisecond}); g.longestBy(at(310)) != want {
		t.Errorf("longest is %+v, want %+v", g.longestBy(at(310)), want)
	}
	if want := (Gap{at(300), 500 * time.Millisecond}); g.longestBy(at(800)) != want {
		t.Errorf("longest is %+v, want the open one %+v", g.longestBy(at(800)), want)
	}
	if len(g.list) != 2 || g.list[0] != (Gap{at(20), 60 * time.Millisecond}) {
		t.Errorf("gaps are %+v", g.list)
	}
}
