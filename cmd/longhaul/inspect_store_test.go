package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/cmd/longhaul/inspect"
	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/dedup/store"
	"github.com/longhaul-project/longhaul/internal/page"
	"github.com/longhaul-project/longhaul/internal/qemu/qemutest"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
)

// hold carries a stream from one end to the other, whose stores are in the two
// directories, and leaves both in use until the test ends.
func hold(t *testing.T, near, far string, stream []byte) {
	t.Helper()
	var libs [2]*dedup.Library
	var stores [2]*dedup.Store
	for i, path := range []string{near, far} {
		dir, err := store.Open(path)
		if err == nil {
			libs[i], err = dedup.OpenLibrary(dir, dedup.LibraryConfig{})
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
	}
	for i := range stores {
		var err error
		if stores[i], err = libs[i].Agree(libs[1-i].Catalog()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stores[i].Close)
	}
	enc, dec := stores[0].NewEncoder(dedup.EncoderConfig{}), stores[1].NewDecoder(dedup.DecoderConfig{})
	ship := func() {
		for b := enc.Cut(); b != nil; b = enc.Cut() {
			msg, err := b.Compress()
			if err != nil {
				t.Fatal(err)
			}
			x, err := dedup.Expand(msg)
			if err == nil {
				_, _, err = dec.Decode(nil, x)
			}
			if err != nil {
				t.Fatal(err)
			}
			enc.Acked(b.Seq)
		}
	}
	for it := range items(t, stream) {
		if enc.Add(it) {
			ship()
		}
	}
	ship()
	enc.Close()
	dec.Close()
	for _, s := range stores {
		s.Flush()
	}
}

// items are what a stream of QEMU consists of.
func items(t *testing.T, stream []byte) func(func(page.Item) bool) {
	scan, _ := vmstream.Recognise(stream)
	if scan == nil {
		t.Fatal("no stream of QEMU")
	}
	return func(yield func(page.Item) bool) {
		for len(stream) > 0 {
			it, n := scan.Next(stream)
			if n == 0 {
				it, n = scan.Cut(stream), len(stream)
			}
			if stream = stream[n:]; !yield(it) {
				return
			}
		}
	}
}

// With --to, a capture is compared with what the store in use holds with that site: sent
// or received, of the default tenant or another.
func TestInspectKnowsStore(t *testing.T) {
	stream := qemutest.Relay(t, qemutest.Config{Memory: 8, Dirty: 2}).Channels[0].Forward
	dir := t.TempDir()
	capture := filepath.Join(dir, "db1.stream")
	if err := os.WriteFile(capture, stream, 0o600); err != nil {
		t.Fatal(err)
	}
	stores := filepath.Join(dir, "store")
	b, c := filepath.Join(stores, "b"), filepath.Join(stores, "_tenants", "red", "c")
	hold(t, b, c, stream) // b has sent it, c has received it
	for name, args := range map[string][]string{
		"sent":     {"--store", stores, "--to", "b"},
		"only one": {"--store", stores},
		"received": {"--store", stores, "--to", "c", "--tenant", "red"},
		"a copy":   {"--store", c},
	} {
		var out, errs bytes.Buffer
		a := newApp()
		a.stdout, a.stderr = &out, &errs
		if code := a.run(append([]string{"inspect", "--json", "--store-memory", "64MiB", capture}, args...)); code != exitOK || errs.Len() > 0 {
			t.Fatalf("%s: exit code %d, %s", name, code, &errs)
		}
		var doc inspection
		if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		f := doc.Files[0]
		if s := doc.Store; s == nil || s.Pages == 0 || s.Bytes != s.Pages*page.Size || s.Segments == 0 || !strings.HasPrefix(s.Dir, stores) {
			t.Errorf("%s: store %+v", name, s)
		}
		if f.Pages.Known != f.Pages.Distinct || f.Pages.Known == 0 {
			t.Errorf("%s: %d pages are known of %d", name, f.Pages.Known, f.Pages.Distinct)
		}
		for _, m := range f.Methods {
			knows := m.Name == inspect.Dedup || m.Verified
			if knows != (m.Known != nil) || knows && *m.Known > m.Left/3 {
				t.Errorf("%s: %+v", name, m)
			}
		}
	}
}

// People are told which store was used.
func TestInspectShowsStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "b", "sent"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "b", "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	a := newApp()
	a.stdout, a.stderr = &out, &errs
	seed := filepath.Join(captureDir, "precopy-0.gz")
	if code := a.run([]string{"inspect", "--store-memory", "16MiB", "--store", dir, seed, seed}); code != exitOK {
		t.Fatalf("exit code %d, %s", code, &errs)
	}
	for _, want := range []string{
		"store " + filepath.Join(dir, "b") + "\n  held with  b\n  holds      0 pages, 0 B in 0 segments\n\n",
		"  known from the store  ", "WITH THE STORE  ", "  known from the store and the files before  ", "WITH THE STORE AND THE FILES BEFORE",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// Which store is meant has to be clear.
func TestInspectWhichStore(t *testing.T) {
	dir := t.TempDir()
	empty := t.TempDir()
	for _, name := range []string{"b", "c", "_tenants/red/c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "lock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"--store " + dir, exitUsage, "--to is missing; " + dir + " has: b, c, c for red"},
		{"--store " + dir + " --to d", exitFailed, dir + " has no store of d; it has: b, c, c for red"},
		{"--store " + dir + " --tenant blue", exitFailed, dir + " has no store of any site for blue; it has: b, c, c for red"},
		{"--store " + empty, exitFailed, empty + " has no content store"},
		{"--store " + empty + "/none", exitFailed, "no such file or directory"},
		{"--tenant red", exitUsage, "--to or --store is missing"},
		{"--to b --socket " + empty + "/none.sock", exitUnreachable, "or name it with --store"},
	} {
		var out, errs bytes.Buffer
		a := newApp()
		a.stdout, a.stderr = &out, &errs
		args := append([]string{"inspect", filepath.Join(captureDir, "recover-3.gz")}, strings.Fields(tt.args)...)
		if code := a.run(args); code != tt.code || !strings.Contains(errs.String(), tt.want) || out.Len() > 0 {
			t.Errorf("%s: exit code %d, %s, want %d, %s", tt.args, code, &errs, tt.code, tt.want)
		}
	}
}
