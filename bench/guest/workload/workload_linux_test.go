package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/guest/pages"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// small is a memory of n pages.
func small(n int) *memory {
	m := &memory{src: pages.New(1), region: make([]byte, n*pages.Size)}
	m.begin(n)
	for i := range n {
		m.src.Fill(m.page(i), uint64(i), 0)
	}
	for i := range n { // no page stays in its first version
		m.rewrite(i, i%2 == 0)
	}
	return m
}

// TestFaults plants one fault after the other; each is found and named.
func TestFaults(t *testing.T) {
	const n = 512
	plain := func(m *memory) int { // a page with a stamp
		for i := range n {
			if _, _, ok := pages.Stamp(m.page(i)); ok && m.src.Kind(uint64(i)) == pages.Code {
				return i
			}
		}
		t.Fatal("no such page")
		return 0
	}
	tests := []struct {
		name  string
		plant func(m *memory, i int)
		count func(v control.Verdict) int64
	}{
		{"lost", func(m *memory, i int) { clear(m.page(i)) }, func(v control.Verdict) int64 { return v.Lost }},
		{"stale", func(m *memory, i int) { m.src.Fill(m.page(i), uint64(i), 0) }, func(v control.Verdict) int64 { return v.Stale }},
		{"swapped", func(m *memory, i int) { m.src.Fill(m.page(i), uint64(i+1), m.versions[i]) }, func(v control.Verdict) int64 { return v.Swapped }},
		{"bit flipped", func(m *memory, i int) { m.page(i)[100] ^= 4 }, func(v control.Verdict) int64 { return v.Torn }},
		{"half old", func(m *memory, i int) {
			old := make([]byte, pages.Size)
			m.src.Fill(old, uint64(i), m.versions[i].Full())
			copy(m.page(i)[:pages.Size/2], old)
		}, func(v control.Verdict) int64 { return v.Torn }},
		{"journal entry", func(m *memory, i int) { m.inverted[i] ^= 1 }, func(v control.Verdict) int64 { return v.Journal }},
		{"journal sum", func(m *memory, i int) { m.sum++ }, func(v control.Verdict) int64 { return v.Journal }},
		{"journal and page are old together", func(m *memory, i int) {
			m.versions[i], m.inverted[i] = 0, ^pages.Version(0)
			m.src.Fill(m.page(i), uint64(i), 0)
		}, func(v control.Verdict) int64 { return v.Journal }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := small(n)
			var v control.Verdict
			if m.verify(&v); !v.OK() || v.PagesVerified != n {
				t.Fatalf("before: %+v", v)
			}
			tt.plant(m, plain(m))
			v = control.Verdict{}
			if m.verify(&v); v.OK() || v.PagesWrong != 1 || tt.count(v) != 1 || len(v.First) != 1 {
				t.Errorf("found %+v", v)
			}
		})
	}
}

// TestDisk plants faults in a file that stands for the device.
func TestDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 100*pages.Size), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(path, pages.New(1))
	if err != nil {
		nstest.Skip(t, fmt.Sprintf("no direct access here: %v", err))
	}
	for i := range 20 {
		if err := d.rewrite(i); err != nil {
			t.Fatal(err)
		}
	}
	for beat := range uint64(3) {
		if err := d.sign("me", beat); err != nil {
			t.Fatal(err)
		}
	}
	var v control.Verdict
	if d.verify(&v); v.BlocksVerified != 99 || v.BlocksWrong != 0 || d.foreign.Load() != 0 {
		t.Fatalf("%+v, %d foreign", v, d.foreign.Load())
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{5*pages.Size + 7, 99 * pages.Size} { // a block, and the signature
		if _, err := f.WriteAt([]byte("another"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.sign("me", 4); err != nil || d.foreign.Load() != 1 {
		t.Errorf("%d foreign beats, %v; want 1", d.foreign.Load(), err)
	}
	if d.verify(&v); v.BlocksWrong != 1 {
		t.Errorf("%+v; want 1 block wrong", v)
	}
}

// TestFiles finds a changed file.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := readFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var v control.Verdict
	if f.verify(&v); v.FilesVerified != 1 || v.FilesWrong != 0 {
		t.Errorf("%+v", v)
	}
	if err := os.WriteFile(path, []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f.verify(&v); v.FilesWrong != 1 {
		t.Errorf("%+v; want 1 file wrong", v)
	}
}

// TestAnswer: requests are answered or refused.
func TestAnswer(t *testing.T) {
	g := &guest{memory: small(16), files: &files{}}
	if r := g.answer(control.Request{Op: control.OpVerify}); r.Verdict == nil || !r.Verdict.OK() || r.Stats == nil {
		t.Errorf("verify: %+v", r)
	}
	if r := g.answer(control.Request{Op: control.OpDirty, Dirty: &control.Dirty{Rate: 5}}); r.Error != "" || r.Stats.Dirty.Rate != 5 {
		t.Errorf("dirty: %+v", r)
	}
	for _, bad := range []control.Request{{}, {Op: "halt"}, {Op: control.OpDirty}, {Op: control.OpDirty, Dirty: &control.Dirty{Rate: -1}}} {
		if r := g.answer(bad); r.Error == "" {
			t.Errorf("%+v is answered with %+v", bad, r)
		}
	}
}
