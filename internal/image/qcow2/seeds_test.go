package qcow2

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "make the images in testdata anew, with qemu-img")

// makeSeeds has qemu-img make small images of every form.
func makeSeeds(tb testing.TB) {
	tb.Helper()
	disk := make([]byte, 200<<10)
	copy(disk[3000:], strings.Repeat("text that compresses well\n", 1000))
	copy(disk[100<<10:], strings.Repeat("and other text\n", 2000))
	dir := tb.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.raw"), disk, 0o600); err != nil {
		tb.Fatal(err)
	}
	convert, then := "qemu-img convert -O qcow2 disk.raw $out -o ", " && qemu-io -f qcow2 $out"
	for name, script := range map[string]string{
		"v2":         convert + "compat=0.10,cluster_size=512",
		"v3":         convert + "cluster_size=4k",
		"deflate":    convert + "cluster_size=4k -c",
		"deflate-64": convert + "cluster_size=64k -c",
		"zstd":       convert + "cluster_size=4k,compression_type=zstd -c",
		"extended":   convert + "cluster_size=16k,extended_l2=on" + then + " -c 'write -z 112k 512' -c 'write -z 65k 1k'",
		"zero":       convert + "cluster_size=4k" + then + " -c 'write -z 8k 4k' -c 'write -z 12k 8k'",
		"overlay": "qemu-img create -f qcow2 -o cluster_size=4k -b disk.raw -F raw $out" +
			then + " -c 'write -P 1 5k 1k'",
		"snapshot": convert + "cluster_size=4k && qemu-img snapshot -c before $out" + then + " -c 'write -P 2 4k 9k'",
	} {
		cmd := exec.CommandContext(tb.Context(), "sh", "-ec", "out="+name+"; "+script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Fatalf("%s: %v\n%s", script, err, out)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			tb.Fatal(err)
		}
		var packed bytes.Buffer
		w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		w.Write(b)
		w.Close()
		if err := os.WriteFile(filepath.Join("testdata", name+".gz"), packed.Bytes(), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// seeds are the images in testdata, by name.
func seeds(tb testing.TB) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob("testdata/*.gz")
	if err != nil || len(names) == 0 {
		tb.Fatal("no seeds", err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			tb.Fatal(name, err)
		}
		if b, err = io.ReadAll(r); err != nil {
			tb.Fatal(name, err)
		}
		all[strings.TrimSuffix(filepath.Base(name), ".gz")] = b
	}
	return all
}
