package image

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// walked is a block that Blocks gave.
type walked struct {
	off  int64
	data byte // its first byte
}

// walk reads an image from an offset on.
func walk(tb testing.TB, im *Image, from int64) (all []walked, b *Blocks) {
	tb.Helper()
	b = im.Blocks(from)
	for b.Next(tb.Context()) {
		all = append(all, walked{b.Offset(), b.Data()[0]})
	}
	return all, b
}

// create makes a file with the given bytes, and opens it as an image.
func create(tb testing.TB, content []byte) (*Image, string) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	im, err := Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { im.Close() })
	return im, path
}

func TestLastBlockIsPadded(t *testing.T) {
	for _, n := range []int{0, 1, 100, 4095, 4096, 4097, 8191, spanSize - 1, spanSize, spanSize + 1} {
		content := bytes.Repeat([]byte{7}, n)
		im, path := create(t, content)
		if im.Format() != "raw" || im.Size() != int64(n) || im.Name() != path {
			t.Fatalf("%q %q of %d bytes, want %d", im.Name(), im.Format(), im.Size(), n)
		}
		if got := collect(t, path); !bytes.Equal(got, content) {
			t.Errorf("%d bytes: other ones are read", n)
		}
	}
}

func TestHolesAreSkipped(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("holes are found on Linux")
	}
	im, path := create(t, nil)
	im.Close()
	const size = 1 << 40 // would take minutes to read
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{5000, 1 << 30, size - 1} {
		if _, err := f.WriteAt([]byte{1}, off); err != nil {
			t.Fatal(err)
		}
	}
	if im, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	got, b := walk(t, im, 0)
	if len(got) != 3 || got[0].off != 4096 || got[1].off != 1<<30 || got[2].off != size-4096 || b.Done() != size {
		t.Errorf("blocks %+v, done %d, error %v", got, b.Done(), b.Err())
	}
}

func TestResume(t *testing.T) {
	content := make([]byte, 3*spanSize+100)
	for i := 0; i < len(content); i += BlockSize {
		content[i] = byte(i / BlockSize % 3) // every third block is zero
	}
	im, _ := create(t, content)
	whole, _ := walk(t, im, 0)
	for _, stop := range []int{1, 2, 100, len(whole) - 1, len(whole)} {
		b := im.Blocks(0)
		for range stop {
			b.Next(t.Context())
		}
		rest, _ := walk(t, im, b.Done())
		if len(rest) != len(whole)-stop || stop < len(whole) && rest[0] != whole[stop] {
			t.Errorf("after %d of %d blocks, %d follow", stop, len(whole), len(rest))
		}
	}
	for from, first := range map[int64]int64{-1: 4096, 4095: 4096, 4096: 4096, 8191: 4096, 8192: 8192, 12288: 4 * 4096} {
		if got, _ := walk(t, im, from); got[0].off != first {
			t.Errorf("from %d the first block is at %d, want %d", from, got[0].off, first)
		}
	}
	if got, b := walk(t, im, 1<<62); len(got) > 0 || b.Err() != nil || b.Done() != im.Size() {
		t.Errorf("from behind the end: %d blocks, done %d, error %v", len(got), b.Done(), b.Err())
	}
}

func TestCancel(t *testing.T) {
	im, _ := create(t, bytes.Repeat([]byte{1}, 2*spanSize))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	errPause := errors.New("pause")
	b := im.Blocks(0)
	n := 0
	for b.Next(ctx) {
		cancel(errPause)
		n++
	}
	if !errors.Is(b.Err(), errPause) || n != spanSize/BlockSize || b.Done() != spanSize {
		t.Errorf("after %d blocks, done %d: %v", n, b.Done(), b.Err())
	}
	if rest, b := walk(t, im, b.Done()); len(rest) != n || b.Err() != nil {
		t.Errorf("then %d blocks, error %v", len(rest), b.Err())
	}
}

func TestFileShrinks(t *testing.T) {
	im, path := create(t, bytes.Repeat([]byte{1}, 3*spanSize))
	b := im.Blocks(0)
	b.Next(t.Context())
	if err := os.Truncate(path, spanSize+5000); err != nil {
		t.Fatal(err)
	}
	for b.Next(t.Context()) {
	}
	want := "image " + path + ": reading from byte 1048576 of 3145728: file ends at byte 1053576; it had 3145728 when it was opened"
	if b.Err() == nil || b.Err().Error() != want {
		t.Errorf("got  %v\nwant %s", b.Err(), want)
	}
}

func TestNoImages(t *testing.T) {
	dir := t.TempDir()
	pipe, sock := filepath.Join(dir, "pipe"), filepath.Join(dir, "socket")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]string{
		dir:                           "is a directory",
		pipe:                          "is neither a file nor a block device (p---------)",
		"/dev/null":                   "is neither a file nor a block device (Dc---------)",
		sock:                          "no such device or address",
		filepath.Join(dir, "nothing"): "no such file or directory",
		"":                            "no such file or directory",
		"nbd://":                      "no host",
		"nbds://host/disk":            "nbds: TLS is not supported; want nbd or nbd+unix",
		"nbd+unix:///x?socket=" + dir + "/nothing": "dial unix " + dir + "/nothing: connect: no such file or directory",
	} {
		im, err := Open(t.Context(), name)
		if err == nil || !strings.HasPrefix(err.Error(), "image "+name+": ") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: got %v, %v; want %s", name, im, err, want)
		}
	}
}

// TestNoAllocations reads on without a byte of garbage per block.
func TestNoAllocations(t *testing.T) {
	im, _ := create(t, bytes.Repeat([]byte{1}, 8*spanSize))
	b := im.Blocks(0)
	b.Next(t.Context())
	if n := testing.AllocsPerRun(7*spanSize/BlockSize, func() { b.Next(t.Context()) }); n > 0 {
		t.Errorf("%v allocations per block", n)
	}
	if b.Err() != nil || b.Done() < 7*spanSize {
		t.Errorf("done %d, error %v", b.Done(), b.Err())
	}
}

// Step comes back from zeros that are written, span by span, and Read counts them; Next
// skips them, and neither reads a hole.
func TestStepThroughZeros(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zeros")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, one := f.WriteAt(make([]byte, 5<<20), 0)
	_, two := f.WriteAt([]byte{1}, 5<<20)
	if err := errors.Join(one, two, f.Truncate(100<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	b, steps, blocks := im.Blocks(0), 0, 0
	for last := int64(0); b.Step(t.Context()); steps++ {
		if b.Done() <= last {
			t.Fatalf("no step at byte %d", last)
		}
		if last = b.Done(); b.Data() != nil {
			blocks++
		}
	}
	if err := b.Err(); err != nil || blocks != 1 || steps < 6 || b.Read() < 5<<20+4096 || b.Read() > 7<<20 || b.Done() != 100<<20 {
		t.Errorf("%d blocks in %d steps, %d bytes read, %d done, %v", blocks, steps, b.Read(), b.Done(), err)
	}
	if b = im.Blocks(0); !b.Next(t.Context()) || b.Offset() != 5<<20 || b.Next(t.Context()) {
		t.Errorf("the next block is at %d", b.Offset())
	}
}
