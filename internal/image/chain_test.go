package image

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackingFilesStayBelow names backing files that must not be followed.
func TestBackingFilesStayBelow(t *testing.T) {
	need(t, "qemu-img")
	top := t.TempDir()
	dir := filepath.Join(top, "images")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(top, "secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"out": secret, "up": "..", "inside": "base", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "base"), bytes.Repeat([]byte("base"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	const outside = "is outside of the image's directory"
	for i, c := range []struct{ name, want string }{
		{"base", ""},
		{"./base", ""},
		{"../images/base", ""},
		{dir + "/base", ""},
		{"inside", ""},
		{secret, outside},
		{"../secret", outside},
		{"/", outside},
		{dir, "is a directory"},
		{"out", "escapes from parent"},
		{"up/secret", "escapes from parent"},
		{"loop", "too many"},
		{"nothing", "no such file or directory"},
		{"nbd://localhost/x", "is no file"},
		{`json:{"driver":"file","filename":"/etc/passwd"}`, "is no file"},
		{"fd:3", "is no file"},
		{"/dev/zero", outside},
		{"base\x00", "invalid argument"},
	} {
		path := filepath.Join(dir, fmt.Sprintf("overlay%d", i))
		sh(t, dir, "qemu-img create -u -f qcow2 -F raw -b "+strings.Repeat("x", len(c.name))+" "+path+" 16k")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.LastIndex(b, bytes.Repeat([]byte("x"), len(c.name)))
		copy(b[at:], c.name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := Open(t.Context(), path)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.name, err)
			} else if got, _ := walk(t, im, 0); len(got) != 4 || got[0].data != 'b' {
				t.Errorf("%q: blocks %v", c.name, got)
			}
			continue
		}
		want := fmt.Sprintf("image %s: qcow2: backing file %q, named at byte %d: ", path, c.name, at)
		if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %s", c.name, err, want+c.want)
		}
	}
}

// TestLongChains follows backing files up to a bound, which a loop reaches too.
func TestLongChains(t *testing.T) {
	need(t, "qemu-img")
	dir := t.TempDir()
	sh(t, dir, "qemu-img create -u -f qcow2 -b loop -F qcow2 other 64k")
	if err := os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), filepath.Join(dir, "loop"))
	if err == nil || !strings.HasSuffix(err.Error(), "more than 64 files in a chain") {
		t.Errorf("a loop: %v", err)
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil && len(fds) > 60 {
		t.Errorf("%d files are open after an error", len(fds))
	}
	if err := os.WriteFile(filepath.Join(dir, "d0"), bytes.Repeat([]byte{1}, 16<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	format := "raw"
	for i := 1; i < maxChain; i++ {
		sh(t, dir, fmt.Sprintf("qemu-img create -u -f qcow2 -b d%d -F %s d%d 64k", i-1, format, i))
		format = "qcow2"
	}
	im, err := Open(t.Context(), filepath.Join(dir, fmt.Sprintf("d%d", maxChain-1)))
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	if got, b := walk(t, im, 0); len(got) != 4 || b.Err() != nil {
		t.Errorf("blocks %v, error %v", got, b.Err())
	}
}

// TestBackingFormat believes the format that the overlay tells, so that a guest
// cannot turn its raw disk into a qcow2 image that names a file.
func TestBackingFormat(t *testing.T) {
	need(t, "qemu-img")
	dir := t.TempDir()
	sh(t, dir, "qemu-img create -f qcow2 base 64k")
	for format, want := range map[string]string{"raw": "QFI\xfb", "qcow2": ""} {
		sh(t, dir, "qemu-img create -u -f qcow2 -b base -F "+format+" overlay 256k")
		got := collect(t, filepath.Join(dir, "overlay"))
		if !strings.HasPrefix(string(bytes.TrimRight(got, "\x00")), want) || want == "" && len(bytes.Trim(got, "\x00")) > 0 {
			t.Errorf("%s: disk begins with %q", format, got[:8])
		}
	}
	sh(t, dir, "qemu-img create -u -f qcow2 -b base -F vmdk overlay 256k")
	_, err := Open(t.Context(), filepath.Join(dir, "overlay"))
	if err == nil || !strings.HasSuffix(err.Error(), `: format "vmdk" is not supported; want raw or qcow2`) {
		t.Errorf("vmdk: %v", err)
	}
}

// TestErrorsNameTheBackingFile breaks the file below.
func TestErrorsNameTheBackingFile(t *testing.T) {
	need(t, "qemu-img")
	dir := t.TempDir()
	writeDisk(t, filepath.Join(dir, "disk"), 1<<20, 3)
	sh(t, dir, "qemu-img convert -O qcow2 disk base")
	sh(t, dir, "qemu-img create -f qcow2 -b base -F qcow2 overlay")
	if err := os.Truncate(filepath.Join(dir, "base"), 5*65536+1); err != nil {
		t.Fatal(err)
	}
	im, err := Open(t.Context(), filepath.Join(dir, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	_, b := walk(t, im, 0)
	if b.Err() == nil || !strings.Contains(b.Err().Error(), `backing file "base": qcow2: byte 262`) {
		t.Error(b.Err())
	}
}
