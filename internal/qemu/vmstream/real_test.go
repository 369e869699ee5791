package vmstream

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/qemutest"
)

// TestReal scans what a real QEMU sends, for each kind of migration that the
// one at hand can do.
func TestReal(t *testing.T) {
	long(t)
	type config = qemutest.Config
	file, relay := qemutest.File, qemutest.Relay
	for _, tc := range []struct {
		name    string
		capture func(testing.TB, config) *qemutest.Capture
		config  config
		formats []string // of the channels; their pages are counted if all of them are page-aware
	}{
		{"file", file, config{Dirty: 2}, []string{"qemu"}},
		{"precopy", relay, config{Dirty: 4}, []string{"qemu"}},
		{"old machine", relay, config{Machine: "pc-i440fx-2.12"}, []string{"qemu"}},
		{"xbzrle", relay, config{Dirty: 8, Passes: 5, XBZRLE: true}, []string{"qemu"}},
		{"compress", relay, config{Dirty: 8, Compress: true}, nil},
		{"multifd", relay, config{Dirty: 4, Multifd: 2}, []string{"qemu", "qemu-multifd", "qemu-multifd"}},
		{"multifd zlib", relay, config{Dirty: 4, Multifd: 1, Compression: "zlib"}, []string{"qemu", "qemu-multifd"}},
		{"multifd zstd", relay, config{Dirty: 4, Multifd: 1, Compression: "zstd"}, []string{"qemu", "qemu-multifd"}},
		{"postcopy", relay, config{Dirty: 4, Postcopy: true}, []string{"qemu"}},
		{"preempt", relay, config{Dirty: 4, Postcopy: true, Preempt: true}, []string{"qemu", "qemu-preempt"}},
		{"recover", relay, config{Dirty: 8, Postcopy: true, Recover: true, Bandwidth: 16 << 20}, []string{"qemu", "qemu-recover"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.config.Memory = 16
			c := tc.capture(t, tc.config)
			for i, f := range tc.formats {
				if i >= len(c.Channels) {
					t.Fatalf("%d channels, want %d", len(c.Channels), len(tc.formats))
				}
				if s, _ := Recognise(c.Channels[i].Forward); s != nil && s.Facts().Format != f {
					t.Errorf("channel %d is %s, want %s", i, s.Facts().Format, f)
				}
			}
			if tc.config.XBZRLE {
				f := scan(t, New(), c.Channels[0].Forward, whole, never)
				if n := uint64(f.count(page.XBZRLE)); n > c.Deltas || n == 0 { // it counts those, too, that have not changed
					t.Errorf("%d differences, QEMU counts %d", n, c.Deltas)
				}
			}
			pages, zeros := checkChannels(t, c)
			most := c.Pages
			if tc.config.Multifd > 0 { // up to QEMU 8.1 the last page of a full packet may come twice
				most += c.Pages / 64
			}
			counted := !tc.config.Recover && tc.config.Compression == ""
			if counted && (pages < c.Pages || pages > most) || !tc.config.Compress && zeros != c.ZeroPages {
				t.Errorf("%d pages and %d zero pages, QEMU counts %d and %d", pages, zeros, c.Pages, c.ZeroPages)
			}
		})
	}
}

// checkChannels scans all channels and returns the sums of their pages.
func checkChannels(t *testing.T, c *qemutest.Capture) (pages, zeros uint64) {
	for i, ch := range c.Channels {
		fresh := func() page.Scanner {
			if s, ok := Recognise(ch.Forward); ok {
				return s
			}
			return NewPreempt() // it was silent
		}
		f := scan(t, fresh(), ch.Forward, whole, never)
		if !bytes.Equal(f.bytes, ch.Forward) {
			t.Fatalf("channel %d came out changed", i)
		}
		t.Logf("channel %d: %d bytes, %d items, %+v", i, len(f.bytes), len(f.items), f.facts)
		if f.facts.Lost != "" {
			t.Errorf("channel %d: lost: %s", i, f.facts.Lost)
		}
		pages += f.facts.Pages
		zeros += f.facts.ZeroPages
		checkSomeSplits(t, fresh, ch.Forward)
		switch f.facts.Format {
		case "qemu":
			checkMain(t, c, ch, f)
		case "qemu-multifd":
			checkPackets(t, f)
			if n := f.count(page.Opaque); (n > 0) != (c.Config.Compression != "") {
				t.Errorf("channel %d: %d opaque items, compression is %q", i, n, c.Config.Compression)
			}
		}
	}
	return pages, zeros
}

// checkSomeSplits is checkSplits for long streams.
func checkSomeSplits(t *testing.T, fresh func() page.Scanner, stream []byte) {
	t.Helper()
	checkSplits(t, fresh, stream[:min(len(stream), 64<<10)], 20)
	for seed := range uint64(2) {
		r := rand.New(rand.NewPCG(seed, 2))
		size := func() int { return 1 + r.IntN(64<<10) }
		f := scan(t, fresh(), stream, size, func() bool { return seed == 1 })
		if !bytes.Equal(f.bytes, stream) || f.facts.Lost != "" {
			t.Errorf("seed %d: came out changed, or lost: %+v", seed, f.facts)
		}
	}
}

// checkMain checks facts and marks of a main channel.
func checkMain(t *testing.T, c *qemutest.Capture, ch qemutest.Channel, f *found) {
	t.Helper()
	if f.facts.PageSize != page.Size || f.facts.Machine == "" {
		t.Errorf("facts: %+v", f.facts)
	}
	if f.facts.ReturnPath != (len(ch.Back) > 0) {
		t.Errorf("return path: %v, and %d bytes came back", f.facts.ReturnPath, len(ch.Back))
	}
	// The last pass may have no page, and postcopy counts one of its own.
	// Threads that compress send pages out of order, which only looks like more.
	if r := f.facts.Rounds; len(c.Channels) == 1 && (r < c.Passes-3 || r > c.Passes+2 && !c.Config.Compress) {
		t.Errorf("%d rounds, QEMU counts %d", r, c.Passes)
	}
	at := f.sealAt()
	if at < 0 {
		t.Fatal("no seal")
	}
	if f.facts.Postcopy {
		checkPackaged(t, ch.Forward, f, at)
		return
	}
	footer := ch.Forward[at-sectionRef : at]
	if footer[0] != elemFooter || ch.Forward[at] != elemFull {
		t.Errorf("seal at %d: %x before it, %x after", at, footer, ch.Forward[at:][:1])
	}
	for i, it := range f.items {
		if f.at[i] >= at && (it.Kind != page.Opaque || it.Mark&page.Flush == 0 || it.Mark&page.Hold != 0) {
			t.Errorf("item at %d, after the seal: kind %d, mark %d", f.at[i], it.Kind, it.Mark)
		}
	}
	if !bytes.Contains(ch.Forward[at:], []byte(`"devices"`)) {
		t.Error("no description of the VM after the seal")
	}
}

// checkPackaged checks that PACKAGED begins at seal and is held until it ends,
// and that nothing waits after it.
func checkPackaged(t *testing.T, stream []byte, f *found, seal int) {
	t.Helper()
	if !isPackaged(stream[seal:]) {
		t.Fatalf("seal at %d, before %x", seal, stream[seal:][:8])
	}
	end := seal + commandHeader + packagedSize + int(binary.BigEndian.Uint32(stream[seal+commandHeader:]))
	after := false
	for i, it := range f.items {
		if f.at[i] < seal {
			if it.Mark&(page.Hold|page.Seal) != 0 {
				t.Fatalf("item at %d, before the seal: mark %d", f.at[i], it.Mark)
			}
			continue
		}
		to := f.at[i] + it.Len()
		if held := it.Mark&page.Hold != 0; held != (to < end) || it.Mark&page.Flush == 0 {
			t.Fatalf("item from %d to %d: mark %d; PACKAGED ends at %d", f.at[i], to, it.Mark, end)
		}
		after = after || f.at[i] == end
	}
	if !after {
		t.Errorf("no item begins at %d, after PACKAGED", end)
	}
}
