package reduction

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/internal/page"
)

// Words of QEMU's main channel (internal/qemu/vmstream/doc.go).
const (
	wordZero     = 0x02
	wordMemSize  = 0x04
	wordPage     = 0x08
	wordEOS      = 0x10
	wordContinue = 0x20
)

// A capture is a stream that is written by hand.
type capture struct{ b []byte }

func (c *capture) u32(v uint32) *capture { c.b = binary.BigEndian.AppendUint32(c.b, v); return c }
func (c *capture) u64(v uint64) *capture { c.b = binary.BigEndian.AppendUint64(c.b, v); return c }
func (c *capture) text(s string) *capture {
	c.b = append(c.b, s...)
	return c
}

// begin writes everything before the first page of a guest with size bytes.
func begin(size uint64) *capture {
	c := new(capture).text("QEVM").u32(3).text("\x07").u32(10).text("pc-q35-7.2")
	c.text("\x01").u32(2).text("\x03ram").u32(0).u32(4).u64(size | wordMemSize).text("\x06pc.ram").u64(size)
	c.u64(wordEOS).text("\x7e").u32(2)
	return c.text("\x02").u32(2).u64(0 | wordZero).text("\x06pc.ram\x00")
}

func (c *capture) zero(n uint64) *capture {
	return c.u64(n*page.Size | wordZero | wordContinue).text("\x00")
}

func (c *capture) page(n uint64, content []byte) *capture {
	return c.u64(n*page.Size | wordPage | wordContinue).text(string(content))
}

func (c *capture) end() []byte {
	c.u64(wordEOS).text("\x7e").u32(2).text("\x03").u32(2).u64(wordEOS).text("\x7e").u32(2)
	return c.text("\x04").u32(7).text("\x03cpu").u32(0).u32(12).text("registers\x7e").u32(7).text("\x00").b
}

// content is a page that no other seed has.
func content(seed int) []byte {
	b := make([]byte, page.Size)
	v := uint64(seed)*2 + 1
	for i := 0; i < len(b); i += 8 {
		v = v*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(b[i:], v&0x00ffff00ffff00ff)
	}
	return b
}

func TestCount(t *testing.T) {
	changed, rewritten := content(1), content(3)
	changed[100]++
	c := begin(1<<20).zero(1).page(2, content(1)).page(3, content(1)).page(4, content(2)). // 3 duplicates 2
												zero(1).page(2, content(1)).page(3, changed).page(4, rewritten).page(1, content(4)) // same, sparse, changed, changed
	got := Count("x", c.end())
	want := Content{Name: "x", Bytes: int64(len(c.b)), Pages: 10, Zero: 3, Same: 1, Changed: 3, Sparse: 1, Duplicates: 1, Rounds: 1}
	got.Rounds = want.Rounds // the scanner's business
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// server is a synthetic stream: pages first..first+n of a family of contents.
func server(first, n int) []byte {
	c := begin(4 << 20)
	for i := range n {
		c.page(uint64(i+1), content(first+i))
		c.zero(uint64(i + 1 + n))
	}
	return c.end()
}

// copied is what an NBD client says that writes the same contents to a disk.
func copied(first, n int) []byte {
	c := new(capture).u32(3).text("IHAVEOPT").u32(7).u32(6).u32(0).text("\x00\x00")
	c.u32(0x25609513).u32(1).u64(7).u64(1 << 20).u32(uint32(n * page.Size))
	for i := range n {
		c.text(string(content(first + i)))
	}
	return c.b
}

func TestRun(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		nstest.Skip(t, "needs the program zstd")
	}
	in := Input{Deb1: server(0, 200), Disk: copied(190, 20), Deb2: server(100, 200), Calm: server(5, 200), Busy: server(10, 200), Sparse: server(500, 50)}
	report, err := Run(t.Context(), in, Options{})
	if err != nil {
		t.Fatal(err)
	}
	left := make(map[string]float64)
	for _, r := range report.Rows {
		left[r.Case+" "+r.Method] = r.Percent()
		if r.Left <= 0 || r.Encode <= 0 {
			t.Errorf("%s, %s: %d bytes left in %v", r.Case, r.Method, r.Left, r.Encode)
		}
	}
	const fast = "longhaul fast (zstd-1)"
	// Half of deb2 is in deb1, of back 97.5 per cent, of back busy 95, of the retry 90;
	// what back has new is on the disk.
	for _, tt := range []struct {
		c        string
		from, to float64 // share of cold
	}{{"second", 0.4, 0.6}, {"back", 0.02, 0.05}, {"back with its disk", 0, 0.015}, {"back busy", 0.04, 0.1}, {"retry", 0.09, 0.15}, {"known", 0, 0.02}} {
		share := left[tt.c+" "+fast] / left["cold "+fast]
		if share < tt.from || share > tt.to {
			t.Errorf("%s leaves %.3f of what cold leaves, want %v to %v", tt.c, share, tt.from, tt.to)
		}
	}
	checkText(t, report)
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
}

func checkText(t *testing.T, report Report) {
	t.Helper()
	var b strings.Builder
	if err := report.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"deb1-calm", "back busy", "zstd -3 --long=31", "lz4", "retry", "cores busy"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text has no %q:\n%s", want, b.String())
		}
	}
	t.Logf("\n%s", b.String())
}

// TestChosen: only what is asked for is measured.
func TestChosen(t *testing.T) {
	in := Input{Deb1: server(0, 20), Busy: server(5, 20), Deb2: server(10, 20)}
	report, err := Run(t.Context(), in, Options{Cases: []string{"second", "back"}, Methods: []string{"longhaul fast", "lz4"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range report.Rows {
		got = append(got, r.Case+", "+r.Method)
	}
	if want := []string{"second, lz4", "second, longhaul fast (zstd-1)"}; !slices.Equal(got, want) || len(report.Scaling) > 0 {
		t.Errorf("measured %q and %d of scaling, want %q", got, len(report.Scaling), want)
	}
	for _, name := range []string{"cld", "sec"} {
		if _, err := Run(t.Context(), in, Options{Cases: []string{name}}); err == nil {
			t.Errorf("a case %q, which there is not, was measured", name)
		}
	}
}

// TestNoFalsePraise: what is not rebuilt to the byte has no figure.
func TestNoFalsePraise(t *testing.T) {
	stream := server(0, 20)
	s := newPair(len(stream)).open(settings()[0])
	defer s.close()
	if err := s.encode(stream, s.compress); err != nil {
		t.Fatal(err)
	}
	other := append([]byte(nil), stream...)
	other[len(other)/2] ^= 1
	if _, err := s.decode(other); !errors.Is(err, errDiffers) {
		t.Errorf("a changed stream: %v", err)
	}
	c := comparer{rest: other}
	if _, err := c.Write(stream); !errors.Is(err, errDiffers) {
		t.Errorf("a peer's changed stream: %v", err)
	}
}
