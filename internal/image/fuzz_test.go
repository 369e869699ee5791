package image

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzOpen reads whatever comes as a file, the way that operators do.
func FuzzOpen(f *testing.F) {
	names, err := filepath.Glob("qcow2/testdata/*.gz")
	if err != nil || len(names) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range names {
		packed, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			f.Fatal(err)
		}
		file, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), bytes.Repeat([]byte("disk"), 60<<10), 0o600); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "image")
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := Open(t.Context(), path)
		if err == nil {
			defer im.Close()
			err = checkBlocks(t, im)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "image "+path+": ") {
			t.Errorf("error %q", err)
		}
	})
}

// checkBlocks reads an image and checks what Blocks promises.
func checkBlocks(t *testing.T, im *Image) error {
	last, sum := int64(-BlockSize), int64(0)
	b := im.Blocks(0)
	for b.Next(t.Context()) {
		off := b.Offset()
		if off < last+BlockSize || off%BlockSize != 0 || off >= im.Size() || len(b.Data()) != BlockSize || bytes.Equal(b.Data(), zeros[:]) {
			t.Fatalf("block of %d bytes at %d after that at %d, disk of %d", len(b.Data()), off, last, im.Size())
		}
		last, sum = off, sum+BlockSize
		if sum > 64<<20 {
			break
		}
	}
	return b.Err()
}
