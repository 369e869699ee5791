package nbd

import (
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode"

	"github.com/longhaul-project/longhaul/internal/nbd/nbdtest"
)

var update = flag.Bool("update", false, "record the conversations in testdata anew, with qemu-nbd")

// realDisk is the disk of the conversations.
func realDisk() []byte {
	disk := make([]byte, 200<<10+512)
	copy(disk[8<<10:], strings.Repeat("text in a file\n", 700))
	copy(disk[len(disk)-100:], "the end")
	return disk
}

// TestConversation replays what a qemu-nbd has said.
func TestConversation(t *testing.T) {
	if *update {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		disk := realDisk()
		for _, at := range []int{8 << 10, 200 << 10} { // the rest is holes
			if _, err := f.WriteAt(disk[at:min(at+11<<10, len(disk))], int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		target, err := ParseURI(nbdtest.Serve(t, "unix", file, "--format=raw"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial(target.Network, target.Address)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/qemu-7.2", hear(t, conn, ""), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, stream := range conversations(t) {
		got, err := replay(stream)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(realDisk()) {
			t.Error("the disk differs")
		}
	}
}

// conversations are what servers have said, from testdata.
func conversations(tb testing.TB) (all [][]byte) {
	names, err := filepath.Glob("testdata/qemu-*")
	if err != nil || len(names) == 0 {
		tb.Fatal("no conversations", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzClient lets a server say anything. Seeds are whole conversations.
func FuzzClient(f *testing.F) {
	for _, stream := range conversations(f) {
		f.Add(stream)
	}
	disk := testDisk(9 << 10)
	for _, s := range []*server{{disk: disk}, {disk: disk, shuffle: 8}, {disk: disk, plain: true},
		{disk: disk, plain: true, oldGo: true},
		{disk: disk[:8<<10], minBlock: 4096, maxBlock: 4096}, {disk: disk, grain: 1}} {
		f.Add(record(f, s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := replay(stream)
		runtime.ReadMemStats(&after)
		// At most: 16 reads of 1 MiB, the extents, and the disk of replay, 9 MiB.
		if n := after.TotalAlloc - before.TotalAlloc; n > 40<<20 {
			t.Errorf("allocated %d bytes, error %v", n, err)
		}
		if err == nil || err == io.EOF { // the end of a disk too large for replay
			return
		}
		if errors.Is(err, io.EOF) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error %q", err)
		}
	})
}
