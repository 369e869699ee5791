package qemutest

import (
	"bytes"
	"testing"
)

func TestFile(t *testing.T) {
	c := File(t, Config{Dirty: 2})
	if s := c.Channels[0].Forward; !bytes.HasPrefix(s, []byte("QEVM")) {
		t.Errorf("stream of %d bytes begins with %x", len(s), s[:min(4, len(s))])
	}
	if want := uint64(2 << 20 / 4096 * 2); c.Passes < 3 || c.Pages < want {
		t.Errorf("%d passes, %d pages; want at least 3 and %d", c.Passes, c.Pages, want)
	}
}

func TestRelay(t *testing.T) {
	for name, tc := range map[string]struct {
		config Config
		first  []string // bytes that the channels begin with; "" for none at all
	}{
		"idle":    {Config{}, []string{"QEVM"}},
		"multifd": {Config{Dirty: 4, Multifd: 2}, []string{"QEVM", "\x11\x22\x33\x44", "\x11\x22\x33\x44"}},
		"recover": {Config{Dirty: 8, Postcopy: true, Recover: true, Bandwidth: 16 << 20}, []string{"QEVM", "\x08\x00\x0a"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Relay(t, tc.config)
			if len(got.Channels) != len(tc.first) {
				t.Fatalf("%d channels, want %d", len(got.Channels), len(tc.first))
			}
			for i, c := range got.Channels {
				if !bytes.HasPrefix(c.Forward, []byte(tc.first[i])) {
					t.Errorf("channel %d begins with %x, want %x", i, c.Forward[:min(8, len(c.Forward))], tc.first[i])
				}
			}
			if len(got.Channels[0].Back) == 0 {
				t.Error("the return path was silent")
			}
		})
	}
}
