package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// need skips the test where a program of Debian's qemu-utils is missing.
func need(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			nstest.Skip(tb, err.Error()+"; run: apt-get install --no-install-recommends qemu-utils")
		}
	}
}

// sh runs a command in dir, the words of which stand apart by spaces.
func sh(tb testing.TB, dir, command string) {
	tb.Helper()
	words := strings.Fields(command)
	cmd := exec.CommandContext(tb.Context(), words[0], words[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// qemuIO runs commands of qemu-io on an image.
func qemuIO(tb testing.TB, dir, image string, commands ...string) {
	tb.Helper()
	args := []string{"-t", "unsafe", "-f", "qcow2"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	cmd := exec.CommandContext(tb.Context(), "qemu-io", append(args, image)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("rror")) {
		tb.Fatalf("qemu-io %q: %v\n%s", commands, err, out)
	}
}

// writeDisk makes a raw disk of size bytes with text, noise, zero bytes and holes.
func writeDisk(tb testing.TB, path string, size int64, seed uint64) {
	tb.Helper()
	f, err := os.Create(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(seed, 1))
	for off := int64(0); off < size; {
		n := min(1+rng.Int64N(200<<10), size-off)
		b := make([]byte, n)
		switch rng.IntN(4) {
		case 0: // hole
			off += n
			continue
		case 1: // zeros that are written
		case 2:
			for i := 0; i < len(b); i += 8 {
				binary.Append(b[i:i], binary.LittleEndian, rng.Uint64())
			}
		case 3:
			copy(b, strings.Repeat(fmt.Sprintf("line %d of a file\n", rng.IntN(1000)), len(b)/16))
		}
		if _, err := f.WriteAt(b, off); err != nil {
			tb.Fatal(err)
		}
		off += n
	}
	if err := f.Truncate(size); err != nil {
		tb.Fatal(err)
	}
}

// collect reads an image whole and gives the disk that its blocks make up.
func collect(tb testing.TB, name string) []byte {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	im, err := Open(ctx, name)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := im.Close(); err != nil {
			tb.Error(err)
		}
	}()
	disk := make([]byte, roundUp(im.Size()))
	last := int64(-1)
	b := im.Blocks(0)
	for b.Next(ctx) {
		off := b.Offset()
		switch {
		case off <= last || off%BlockSize != 0 || off >= im.Size() || len(b.Data()) != BlockSize:
			tb.Fatalf("%s: block of %d bytes at %d after that at %d; disk of %d", name, len(b.Data()), off, last, im.Size())
		case bytes.Equal(b.Data(), zeros[:]):
			tb.Fatalf("%s: block at %d is zero", name, off)
		case b.Done() != min(off+BlockSize, im.Size()):
			tb.Fatalf("%s: done is %d at block %d", name, b.Done(), off)
		}
		copy(disk[off:], b.Data())
		last = off
	}
	if err := b.Err(); err != nil {
		tb.Fatal(err)
	}
	if b.Done() != im.Size() || b.Next(ctx) {
		tb.Fatalf("%s: done is %d of %d at the end", name, b.Done(), im.Size())
	}
	if pad := disk[im.Size():]; len(bytes.Trim(pad, "\x00")) > 0 {
		tb.Fatalf("%s: block behind the end has data", name)
	}
	return disk[:im.Size()]
}

// same compares an image with what qemu-img makes of it.
func same(t *testing.T, dir, image string) {
	t.Helper()
	sh(t, dir, "qemu-img convert -O raw "+image+" want.raw")
	want, err := os.ReadFile(filepath.Join(dir, "want.raw"))
	if err != nil {
		t.Fatal(err)
	}
	got := collect(t, filepath.Join(dir, image))
	if len(got) != len(want) {
		t.Fatalf("disk of %d bytes, qemu-img has %d", len(got), len(want))
	}
	for i := 0; i < len(got); i += 512 {
		if n := min(i+512, len(got)); !bytes.Equal(got[i:n], want[i:n]) {
			t.Fatalf("differs from qemu-img at byte %d", i)
		}
	}
}

func TestQemuImgAgrees(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	for _, options := range []string{
		"-O raw",
		"-O raw -S 0",
		"-O qcow2 -o compat=0.10",
		"-O qcow2 -o compat=1.1",
		"-O qcow2 -o compat=1.1,preallocation=metadata",
		"-O qcow2 -o compat=1.1,lazy_refcounts=on",
		"-O qcow2 -o cluster_size=512",
		"-O qcow2 -o cluster_size=2M",
		"-O qcow2 -o cluster_size=16K,extended_l2=on",
		"-O qcow2 -o extended_l2=on",
		"-O qcow2 -c -o compat=0.10",
		"-O qcow2 -c",
		"-O qcow2 -c -o cluster_size=512",
		"-O qcow2 -c -o cluster_size=2M",
		"-O qcow2 -c -o compression_type=zstd",
		"-O qcow2 -c -o compression_type=zstd,cluster_size=2M",
		"-O qcow2 -c -o compression_type=zstd,cluster_size=512",
		"-O qcow2 -c -o extended_l2=on",
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeDisk(t, filepath.Join(dir, "disk.raw"), 9<<20+512*3, 7)
			sh(t, dir, "qemu-img convert "+options+" disk.raw image")
			if strings.Contains(options, "qcow2") { // a mixture: some clusters written anew
				qemuIO(t, dir, "image", "write -P 1 1000k 70k", "write -P 0 3M 100k", "write -P 9 5M 512")
			}
			same(t, dir, "image")
		})
	}
}

func TestBackingFiles(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	for _, base := range []string{"raw", "qcow2"} {
		for _, options := range []string{"compat=0.10", "cluster_size=512", "cluster_size=1M", "extended_l2=on", "compat=1.1"} {
			t.Run(base+","+options, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				writeDisk(t, filepath.Join(dir, "disk.raw"), 5<<20+512, 8)
				if err := os.Mkdir(filepath.Join(dir, "templates"), 0o755); err != nil {
					t.Fatal(err)
				}
				sh(t, dir, "qemu-img convert -O "+base+" disk.raw templates/base")
				sh(t, dir, "qemu-img create -f qcow2 -o "+options+" -b base -F "+base+" templates/middle 6M")
				sh(t, dir, "qemu-img create -f qcow2 -o "+options+" -b "+dir+"/templates/middle -F qcow2 top 8M")
				zero := "write -z 2M 300k"
				if options == "compat=0.10" {
					zero = "write -P 0 2M 300k"
				}
				qemuIO(t, dir, "templates/middle", "write -P 7 100k 9k", "write -P 3 5M 1M", zero)
				qemuIO(t, dir, "top", "write -P 8 104k 512", "write -P 2 7M 512", "write -P 1 2100k 1k")
				same(t, dir, "top")
			})
		}
	}
}

func TestZeroClusters(t *testing.T) {
	need(t, "qemu-img", "qemu-io")
	for _, options := range []string{"compat=1.1", "extended_l2=on", "cluster_size=512"} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeDisk(t, filepath.Join(dir, "base.raw"), 3<<20, 9)
			sh(t, dir, "qemu-img create -f qcow2 -o "+options+" -b base.raw -F raw image")
			qemuIO(t, dir, "image", "write -P 5 0 1M", "write -z 64k 128k", "write -z -u 512k 128k",
				"write -z 2M 70k", "discard 700k 64k", "write -z 1025k 513")
			same(t, dir, "image")
		})
	}
}
