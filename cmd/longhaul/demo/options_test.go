package demo

import (
	"testing"
	"time"
)

func TestLink(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Link
	}{
		{"rate=50Mbit,rtt=120ms,loss=0.1%", Link{50_000_000, 120 * time.Millisecond, 0.001}},
		{"loss=0.001", Link{200_000_000, 60 * time.Millisecond, 0.001}},
		{" rtt=0s , rate=1.5Gbit", Link{1_500_000_000, 0, 0.0005}},
	} {
		l := DefaultLink()
		if err := l.Set(tt.text); err != nil || l != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.text, l, err, tt.want)
		}
		again := DefaultLink()
		if err := again.Set(l.String()); err != nil || again != l {
			t.Errorf("%q is written %q and read as %+v, %v", tt.text, l.String(), again, err)
		}
	}
	for _, text := range []string{"", "rate", "rate=", "speed=1Mbit", "rtt=5", "rtt=-1s", "loss=x", "loss=100%", "loss=-0.1", "loss=NaN", "rate=1Mbit,,"} {
		l := DefaultLink()
		if err := l.Set(text); err == nil || l != DefaultLink() {
			t.Errorf("%q: %+v, %v", text, l, err)
		}
	}
}
