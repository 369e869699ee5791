package vmstream

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/qemutest"
)

var update = flag.Bool("update", false, "capture the streams in testdata anew, and what is found in them")

// TestSeeds scans real streams that were thinned out, and compares with what
// was found in them when they were captured.
func TestSeeds(t *testing.T) {
	if *update {
		captureSeeds(t)
	}
	for name, stream := range seeds(t) {
		t.Run(name, func(t *testing.T) {
			got := describe(scan(t, recognised(stream), stream, whole, never))
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("found something else (-want +got):\n%s", d)
			}
			checkSplits(t, func() page.Scanner { return recognised(stream) }, stream, 10)
		})
	}
}

// recognised is a scanner for stream.
func recognised(stream []byte) page.Scanner {
	s, ok := Recognise(stream)
	if !ok {
		return NewOpaque()
	}
	return s
}

// describe tells what was found, with a line for each run of like items.
func describe(f *found) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%+v\n", f.facts)
	for i := 0; i < len(f.items); {
		it, n, size := f.items[i], 0, 0
		for ; i < len(f.items); i++ {
			if o := f.items[i]; o.Kind != it.Kind || o.Mark != it.Mark || o.Addr.Space != it.Addr.Space {
				break
			}
			size += f.items[i].Len()
			n++
		}
		switch it.Kind {
		case page.Opaque:
			fmt.Fprintf(&w, "opaque %d bytes", size)
		case page.Table:
			fmt.Fprintf(&w, "table %d bytes", size)
		case page.Full:
			fmt.Fprintf(&w, "full %d pages of block %d, first %#x", n, it.Addr.Space, it.Addr.Offset)
		case page.Zero:
			fmt.Fprintf(&w, "zero %d pages of block %d, first %#x", n, it.Addr.Space, it.Addr.Offset)
		}
		for m, name := range []string{"flush", "seal", "hold"} {
			if it.Mark&(1<<m) != 0 {
				w.WriteString(" " + name)
			}
		}
		w.WriteString("\n")
	}
	return w.String()
}

// seeds reads the streams in testdata.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no seeds: %v", err)
	}
	all := make(map[string][]byte)
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		all[strings.TrimSuffix(filepath.Base(path), ".gz")] = b
	}
	return all
}

// captureSeeds writes the streams of small migrations to testdata.
func captureSeeds(t *testing.T) {
	for name, c := range map[string]qemutest.Config{
		"precopy":      {Dirty: 1},
		"old-machine":  {Machine: "pc-i440fx-2.12"},
		"xbzrle":       {Dirty: 8, Passes: 4, XBZRLE: true},
		"compress":     {Dirty: 2, Compress: true},
		"multifd":      {Dirty: 2, Multifd: 1},
		"multifd-zstd": {Dirty: 2, Multifd: 1, Compression: "zstd"},
		"postcopy":     {Dirty: 4, Postcopy: true, Preempt: true},
		"recover":      {Dirty: 8, Postcopy: true, Preempt: true, Recover: true, Bandwidth: 16 << 20},
	} {
		c.Memory = 8
		for i, ch := range qemutest.Relay(t, c).Channels {
			if len(ch.Forward) == 0 {
				continue
			}
			var z bytes.Buffer
			w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
			w.Write(thin(t, ch.Forward))
			w.Close()
			path := filepath.Join("testdata", fmt.Sprintf("%s-%d.gz", name, i))
			if err := os.WriteFile(path, z.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// thin takes out most pages, but for those that name their block, the packets of
// multifd with many pages, what comes long after the seal of a precopy, and the
// rest of what is still long.
func thin(t *testing.T, stream []byte) []byte {
	const few = 3 // pages
	var out []byte
	run, sealed, fat := 0, -1, false
	f := scan(t, recognised(stream), stream, whole, never)
	for i, it := range f.items {
		b := stream[f.at[i] : f.at[i]+it.Len()]
		if len(it.Head) != wordSize {
			run = 0
		}
		if it.Kind == page.Table && i > 0 {
			fat = packet(b).u32(packetNormal) > few
		}
		if run++; run > few || fat {
			continue
		}
		if it.Mark&page.Seal != 0 {
			sealed = len(out)
		}
		out = append(out, b...)
		if most := sealed + 2048; sealed >= 0 && !f.facts.Postcopy && len(out) > most {
			return out[:most]
		}
		if most := 64 << 10; !f.facts.Postcopy && len(out) > most {
			return out[:most]
		}
	}
	return out
}
