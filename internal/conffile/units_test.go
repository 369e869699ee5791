package conffile

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	tests := []struct {
		text string
		want Size // -1: refused
		back string
	}{
		{"512MiB", 512 << 20, "512MiB"}, {"1.5GiB", 3 << 29, "1536MiB"}, {"0", 0, "0"}, {"0B", 0, "0"},
		{"1000", 1000, "1kB"}, {"1kB", 1000, "1kB"}, {"1 KiB", 1024, "1KiB"}, {"7", 7, "7B"},
		{"2TB", 2e12, "2TB"}, {"9223372036854775807", 1<<63 - 1, "9223372036854775807B"}, {"0.5KiB", 512, "512B"},
		{"9223372036854775808", -1, ""}, {"8388608TiB", -1, ""}, {"1.5", -1, ""}, {"0.3KiB", -1, ""}, {"-1", -1, ""},
		{"", -1, ""}, {"MiB", -1, ""}, {".5MiB", -1, ""}, {"5.MiB", -1, ""}, {"1..5MiB", -1, ""}, {"1MIB", -1, ""}, {"1Mbit", -1, ""},
		{"1e3", -1, ""}, {"0x10", -1, ""}, {" 1", -1, ""}, {"1  KiB", -1, ""}, {strings.Repeat("1", 1000), -1, ""}, {"1/2", -1, ""},
	}
	for _, tt := range tests {
		got, err := ParseSize(tt.text)
		if tt.want < 0 {
			if err == nil {
				t.Errorf("%q gives %d", tt.text, got)
			}
			continue
		}
		if err != nil || got != tt.want || got.String() != tt.back {
			t.Errorf("%q: got %d, %s, %v, want %d, %s", tt.text, got, got, err, tt.want, tt.back)
		}
	}
}

func TestRate(t *testing.T) {
	tests := []struct {
		text  string
		want  Rate // -1: refused
		back  string
		bytes int64
	}{
		{"200Mbit", 200e6, "200Mbit", 25e6}, {"1.5Gbit", 1.5e9, "1500Mbit", 187.5e6}, {"100kbit/s", 100e3, "100kbit", 12500},
		{"25MB/s", 200e6, "200Mbit", 25e6}, {"1MiB", 8 << 20, "8388608bit", 1 << 20}, {"0", 0, "0", 0}, {"0bit", 0, "0", 0},
		{"1bit", 1, "1bit", 1}, {"9bit", 9, "9bit", 2}, {"25Gbit", 25e9, "25Gbit", 3.125e9},
		{"9223372036854775807bit", 1<<63 - 1, "9223372036854775807bit", 1 << 60},
		{"200", -1, "", 0}, {"200M", -1, "", 0}, {"200Mbps", -1, "", 0}, {"200mbit", -1, "", 0}, {"-1Mbit", -1, "", 0},
		{"4611686018427387904B", -1, "", 0}, {"10000000Tbit", -1, "", 0}, {"0.5bit", -1, "", 0}, {"", -1, "", 0}, {"1Mbit/s/s", -1, "", 0},
	}
	for _, tt := range tests {
		got, err := ParseRate(tt.text)
		if tt.want < 0 {
			if err == nil {
				t.Errorf("%q gives %d", tt.text, got)
			}
			continue
		}
		if err != nil || got != tt.want || got.String() != tt.back || got.BytesPerSecond() != tt.bytes {
			t.Errorf("%q: got %d, %s, %d bytes/s, %v, want %d, %s, %d", tt.text, got, got, got.BytesPerSecond(), err, tt.want, tt.back, tt.bytes)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"10m": "10m", "90m": "1h30m", "60m": "1h", "0s": "0s", "10s": "10s", "1.5s": "1.5s", "300ms": "300ms", "0": "0s", "1h0m20s": "1h0m20s"} {
		if got, err := ParseDuration(text); err != nil || got.String() != want {
			t.Errorf("%q: got %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "10", "-1s", "10 m", "x", strings.Repeat("9", 400) + "h"} {
		if got, err := ParseDuration(text); err == nil || len(err.Error()) > 250 {
			t.Errorf("%.20q gives %v, %v", text, got, err)
		}
	}
	if got := Duration(time.Second).Std(); got != time.Second {
		t.Error(got)
	}
}

// value is pflag.Value.
type value interface {
	String() string
	Set(string) error
	Type() string
}

func TestValues(t *testing.T) {
	s, r, d := Size(1), Rate(1), Duration(1)
	for _, tt := range []struct {
		v        value
		typ, set string
	}{{&s, "size", "5MiB"}, {&r, "rate", "5Mbit"}, {&d, "duration", "5m"}} {
		if err := tt.v.Set("nonsense"); err == nil {
			t.Errorf("%s takes nonsense", tt.typ)
		}
		before := tt.v.String()
		if tt.v.Set("1??"); tt.v.String() != before {
			t.Errorf("%s: a refused value changes it", tt.typ)
		}
		if err := tt.v.Set(tt.set); err != nil || tt.v.String() != tt.set || tt.v.Type() != tt.typ {
			t.Errorf("%s: set to %s, is %s, %v", tt.v.Type(), tt.set, tt.v, err)
		}
	}
	b, err := json.Marshal([]any{s, r, d})
	if want := `["5MiB","5Mbit","5m"]`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
}

// FuzzUnits: what is taken is written back such that it means the same.
func FuzzUnits(f *testing.F) {
	for _, text := range []string{"512MiB", "1.5Gbit", "25MB/s", "1h30m", "0", "9223372036854775807"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := ParseSize(text); err == nil {
			if back, err := ParseSize(v.String()); err != nil || back != v || v < 0 {
				t.Errorf("%q is %d, written %q", text, v, v)
			}
		}
		if v, err := ParseRate(text); err == nil {
			if back, err := ParseRate(v.String()); err != nil || back != v || v < 0 || v.BytesPerSecond() < 0 {
				t.Errorf("%q is %d, written %q", text, v, v)
			}
		}
		if v, err := ParseDuration(text); err == nil {
			if back, err := ParseDuration(v.String()); err != nil || back != v || v < 0 {
				t.Errorf("%q is %d, written %q", text, v, v)
			}
		}
	})
}
