package streams

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

// TestMirrored: the stream of a disk has its data as blocks, and no holes; it is made
// once there is a disk of deb1.
func TestMirrored(t *testing.T) {
	dir := t.TempDir()
	disk := make([]byte, 5*span+3*page.Size)
	r := rand.New(rand.NewPCG(1, 41))
	data := []struct{ from, end int }{{0, page.Size}, {granule, 2 * granule}, {span - page.Size, span + 2*granule}, {5 * span, len(disk)}}
	for _, d := range data {
		for i := d.from; i < d.end; i++ {
			disk[i] = byte(r.Uint32() | 1)
		}
	}
	writeFile(t, filepath.Join(dir, Deb1+"-paused.img"), disk)
	writeFile(t, filepath.Join(dir, Deb1+".mig"), []byte("x"))
	about, err := json.Marshal(Stream{Name: Deb1, Bytes: 1, QEMU: "QEMU 7"})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, Deb1+".json"), about)
	all, err := Record(t.Context(), Options{Dir: dir, Only: []string{Disk}})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[1].Name != Disk || all[1].QEMU != "QEMU 7" {
		t.Fatalf("there is %+v", all)
	}
	said, err := os.ReadFile(all[1].Path)
	if err != nil {
		t.Fatal(err)
	}
	// The first granule, the second, the last of the first span and the first two of
	// the next, and what is at the end.
	if least, most := 5*granule+3*page.Size, 5*granule+3*page.Size+500; len(said) < least || len(said) > most {
		t.Errorf("%d bytes, want %d to %d", len(said), least, most)
	}
	got := make([]byte, len(disk))
	s, enough := vmstream.Recognise(said[:64])
	if !enough {
		t.Fatal("not recognised")
	}
	for b := said; len(b) > 0; {
		it, n := s.Next(b)
		if n == 0 {
			t.Fatalf("no item in %d bytes", len(b))
		}
		if it.Kind == page.Full {
			copy(got[it.Addr.Offset:], it.Data)
		}
		b = b[n:]
	}
	if f := s.Facts(); !bytes.Equal(got, disk) || f.Format != "nbd" || f.Lost != "" {
		t.Errorf("the disk came out changed; %+v", f)
	}
}
