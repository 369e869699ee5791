package image

import (
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/internal/nbd/nbdtest"
)

// BenchmarkBlocks reads a disk of 64 MiB whole from the page cache: half of it
// is noise and text, the rest zero or holes. The bytes are those of the blocks
// that come out.
func BenchmarkBlocks(b *testing.B) {
	need(b, "qemu-img", "qemu-nbd")
	dir := b.TempDir()
	writeDisk(b, filepath.Join(dir, "raw"), 64<<20, 1)
	for _, c := range []struct{ name, options string }{
		{"raw", ""},
		{"qcow2", "-O qcow2"},
		{"qcow2-512", "-O qcow2 -o cluster_size=512"},
		{"deflate", "-O qcow2 -c"},
		{"zstd", "-O qcow2 -c -o compression_type=zstd"},
		{"overlay", "overlay"},
		{"nbd", "nbd"},
	} {
		name := filepath.Join(dir, c.name)
		switch c.options {
		case "":
		case "overlay":
			sh(b, dir, "qemu-img create -f qcow2 -b qcow2 -F qcow2 overlay")
		case "nbd":
			name = nbdtest.Serve(b, "unix", filepath.Join(dir, "raw"), "--format=raw")
		default:
			sh(b, dir, "qemu-img convert "+c.options+" raw "+c.name)
		}
		b.Run("image="+c.name, func(b *testing.B) { benchmark(b, name) })
	}
}

func benchmark(b *testing.B, name string) {
	im, err := Open(b.Context(), name)
	if err != nil {
		b.Fatal(err)
	}
	defer im.Close()
	var bytes int64
	b.ReportAllocs()
	for b.Loop() {
		bytes = 0
		blocks := im.Blocks(0)
		for blocks.Next(b.Context()) {
			bytes += BlockSize
		}
		if err := blocks.Err(); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(bytes)
}

// BenchmarkHoles walks a disk of 1 TiB with nothing in it.
func BenchmarkHoles(b *testing.B) {
	need(b, "qemu-img")
	dir := b.TempDir()
	sh(b, dir, "qemu-img create -f qcow2 disk 1T")
	benchmark(b, filepath.Join(dir, "disk"))
}
