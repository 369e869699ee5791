package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWalk(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "b", "c")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"z.iso": 4096, "a.raw": 5000, "small": 4095, "b/c/x.qcow2": 8192, "b/a": 9000, ".hidden": 4096} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"file": "a.raw", "up": "..", "sub": "b", "b/out": "/"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{dir, link, dir + "/", dir + "/b/.."} {
		got, err := Walk(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Clean(root)
		want := []File{{base + "/.hidden", 4096}, {base + "/a.raw", 5000}, {base + "/b/a", 9000}, {base + "/b/c/x.qcow2", 8192},
			{base + "/z.iso", 4096}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", root, d)
		}
	}
}

func TestWalkErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Walk(t.Context(), filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Walk(t.Context(), file); !errors.Is(err, syscall.ENOTDIR) || !strings.HasPrefix(err.Error(), "images in "+file+": ") {
		t.Errorf("a file: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Walk(ctx, dir); !errors.Is(err, ctx.Err()) || err == nil {
		t.Errorf("after the end of ctx: %v", err)
	}
}
