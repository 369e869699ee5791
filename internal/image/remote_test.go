package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/internal/nbd/nbdtest"
)

func TestQemuNBDAgrees(t *testing.T) {
	need(t, "qemu-img", "qemu-nbd")
	for _, size := range []int64{20 << 20, 20<<20 - 512, 5 << 20, 1000 << 10} {
		dir := t.TempDir()
		writeDisk(t, filepath.Join(dir, "disk.raw"), size, uint64(size))
		sh(t, dir, "qemu-img convert -O qcow2 disk.raw disk.qcow2")
		want, err := os.ReadFile(filepath.Join(dir, "disk.raw"))
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"unix", "tcp"} {
			for _, format := range []string{"raw", "qcow2"} {
				uri := nbdtest.Serve(t, network, filepath.Join(dir, "disk."+format), "--format="+format)
				if got := collect(t, uri); !bytes.Equal(got, want) {
					t.Errorf("%s of %d bytes over %s: the disk differs", format, size, network)
				}
			}
		}
	}
}

func TestQemuNBDExports(t *testing.T) {
	need(t, "qemu-nbd")
	path := filepath.Join(t.TempDir(), "disk.raw")
	writeDisk(t, path, 3<<20, 5)
	uri := nbdtest.Serve(t, "tcp", path, "--format=raw", "--export-name=a disk/x")
	collect(t, uri+"a%20disk/x")
	_, err := Open(t.Context(), uri+"other")
	if want := "image " + uri + `other: opening export "other": server says no such export (export 'other' not present)`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestRemoteCancel ends ctx in the middle of a disk, then takes up where it was.
func TestRemoteCancel(t *testing.T) {
	need(t, "qemu-nbd")
	path := filepath.Join(t.TempDir(), "disk.raw")
	writeDisk(t, path, 30<<20, 6)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	uri := nbdtest.Serve(t, "unix", path, "--format=raw")
	got, from := make([]byte, len(want)), int64(0)
	errPause := errors.New("pause")
	for pauses := 0; ; pauses++ {
		im, err := Open(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		ctx, pause := context.WithCancelCause(t.Context())
		b := im.Blocks(from)
		for b.Next(ctx) {
			copy(got[b.Offset():], b.Data())
			if b.Offset() > from+7<<20 {
				pause(errPause)
			}
		}
		pause(nil)
		from = b.Done()
		im.Close()
		if b.Err() == nil {
			if pauses < 2 || !bytes.Equal(got, want) {
				t.Errorf("after %d pauses: the disk differs", pauses)
			}
			return
		}
		if !errors.Is(b.Err(), errPause) {
			t.Fatal(b.Err())
		}
	}
}
