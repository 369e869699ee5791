package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/cmd/longhaul/inspect"
)

// captureDir has streams of real QEMUs.
const captureDir = "../../internal/qemu/vmstream/testdata"

// everything is a capture in which there is everything.
func everything() inspect.File {
	known := func(n int64) *int64 { return &n }
	return inspect.File{
		Name: "db1\x1b[2J", Gzip: true, Bytes: 4 << 30, Streams: 2, Format: "qemu", Machine: "pc-q35-7.2", PageSize: 4096,
		ReturnPath: true, Postcopy: true, Rounds: 12, Lost: "ram word 0x1", CutShort: true, Opaque: 100 << 10,
		Pages: inspect.Pages{All: 1000000, Zero: 231000, ResentSame: 35000, Duplicate: 60000, Distinct: 674000, Known: 480000,
			ResentChanged: 28000, ChangedLittle: 20000, Sampled: true},
		Methods: []inspect.Method{
			{Name: inspect.LZ4, Left: 1700 << 20}, {Name: inspect.Zstd1, Left: 1200 << 20}, {Name: inspect.Zstd3, Left: 1100 << 20},
			{Name: inspect.Dedup, Left: 3 << 30, Known: known(1 << 30)},
			{Name: inspect.Longhaul1, Left: 1 << 30, Known: known(250 << 20), Verified: true},
			{Name: inspect.Longhaul3, Left: 1000 << 20, Known: known(230 << 20), Verified: true},
			{Name: inspect.LonghaulFold, Left: 820 << 20, Known: known(200 << 20), Verified: true},
			{Name: inspect.LonghaulPress, Left: 800 << 20, Known: known(190 << 20), Verified: true},
		},
		Evicted: true,
	}
}

func TestWriteCapture(t *testing.T) {
	var got bytes.Buffer
	if err := writeCapture(&got, everything(), "the files before"); err != nil {
		t.Fatal(err)
	}
	want := `db1 [2J (gzip)
  stream      4 GiB, QEMU's main channel, postcopy, with a return path
  machine     pc-q35-7.2, pages of 4 KiB
  migrations  2 in a row; format and machine are the first one's
  rounds      about 12
  opaque      100 KiB, < 0.01 %
  structure   lost: ram word 0x1
  ends        before it is complete: a capture that was cut, or a migration that failed

  PAGES                           COUNT    OF ALL
  all                             1000000  100 %
  zero                            231000   23.1 %
  resent as they were             35000    3.5 %
  duplicates                      60000    6 %
  distinct                        674000   67.4 %
    known from the files before   480000   48 %
  resent and changed              28000    2.8 %
    in less than 64 of 512 words  20000    2 %
  From "resent" on estimated from a sample of the pages.

  METHOD                          LEFT      OF STREAM  AFTER THE FILES BEFORE  OF STREAM
  lz4, whole stream               1.66 GiB  41.5 %     -                       -
  zstd 1, whole stream            1.17 GiB  29.3 %     -                       -
  zstd 3, whole stream            1.07 GiB  26.9 %     -                       -
  zero pages and duplicates only  3 GiB     75 %       1 GiB                   25 %
  Longhaul, zstd 1                1 GiB     25 %       250 MiB                 6.1 %
  Longhaul, zstd 3                1000 MiB  24.4 %     230 MiB                 5.62 %
  Longhaul, fold                  820 MiB   20 %       200 MiB                 4.88 %
  Longhaul, press                 800 MiB   19.5 %     190 MiB                 4.64 %
  What Longhaul would send was decoded with a store of its own: byte-exact.
  Its store was too small for all pages; a larger --store-memory may leave less.

`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}

// The first file has none before it, and what is opaque has no pages.
func TestWriteOpaque(t *testing.T) {
	var got bytes.Buffer
	f := inspect.File{Name: "-", Bytes: 1000, Streams: 1, Format: "tls", Opaque: 1000, Methods: everything().Methods[:1]}
	if err := writeCapture(&got, f, ""); err != nil {
		t.Fatal(err)
	}
	want := `stdin
  stream  1000 B, TLS: what is encrypted cannot be looked into
  opaque  1000 B, 100 %
`
	if !strings.HasPrefix(got.String(), want) || strings.Contains(got.String(), "PAGES") || strings.Contains(got.String(), "AFTER") {
		t.Errorf("got\n%s", &got)
	}
}

// TestInspectJSON looks at a stream of a real QEMU. The bytes left change with
// every better method, so they are not in the golden documents.
func TestInspectJSON(t *testing.T) {
	for _, tt := range []struct {
		golden string
		flags  []string
	}{{"precopy.json", nil}, {"press.json", []string{"--press"}}} {
		var out, errs bytes.Buffer
		a := newApp()
		a.stdout, a.stderr = &out, &errs
		seed := filepath.Join(captureDir, "precopy-0.gz")
		args := append([]string{"inspect", "--json", "--store-memory", "16MiB", seed, seed}, tt.flags...)
		if code := a.run(args); code != exitOK || errs.Len() > 0 {
			t.Fatalf("%v: exit code %d, %s", args, code, &errs)
		}
		got := regexp.MustCompile(`("left\w*_bytes": )\d+`).ReplaceAllString(out.String(), `${1}0`)
		golden := filepath.Join("testdata", "inspect", tt.golden)
		if *update {
			if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s has changed; if that is meant: go test ./cmd/longhaul -update\n%s", tt.golden, d)
		}
	}
}

// Ctrl-C ends it, also while stdin is silent, and what is finished is shown.
func TestInspectInterrupted(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close() // ends the read that was left alone
	var out, errs bytes.Buffer
	signals := make(chan os.Signal, 1) // as main has it
	a := newApp()
	a.stdout, a.stderr, a.signals = &out, &errs, signals
	a.stdin = r
	code := make(chan int, 1) // the one result
	go func() { code <- a.run([]string{"inspect", filepath.Join(captureDir, "recover-3.gz"), "-"}) }()
	if _, err := w.Write([]byte("QEVM")); err != nil { // returns when it is read
		t.Fatal(err)
	}
	signals <- os.Interrupt
	if got := <-code; got != exitInterrupted {
		t.Errorf("exit code %d", got)
	}
	if !strings.Contains(errs.String(), "interrupted") || strings.Count(out.String(), "  METHOD") != 1 {
		t.Errorf("got\n%s\n%s", &out, &errs)
	}
}

// A stdout that is full ends it.
func TestInspectCannotShow(t *testing.T) {
	broken := errors.New("no space left")
	var errs bytes.Buffer
	a := newApp()
	a.stdout, a.stderr = brokenWriter{broken}, &errs
	if code := a.run([]string{"inspect", filepath.Join(captureDir, "recover-3.gz")}); code != exitFailed || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("exit code %d, %s", code, &errs)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	width := 80
	began := time.Now()
	p := &progress{w: &out, width: func() int { return width }, name: "db1", size: 4 << 30, began: began}
	p.clear()
	if out.Len() > 0 {
		t.Errorf("%q before anything was shown", &out)
	}
	p.read = 64 << 20
	p.show(began.Add(time.Millisecond))
	p.show(began.Add(2 * time.Millisecond)) // too soon
	p.read = 1 << 30
	p.show(began.Add(10 * time.Second))
	p.clear()
	want := "\rdb1: 64 MiB of 4 GiB, 1 %\x1b[K" +
		"\rdb1: 1 GiB of 4 GiB, 25 %, 102 MiB/s, 30 s to go\x1b[K" + "\r\x1b[K"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	p.size, width = 0, 15
	if got := p.line(began.Add(10 * time.Second)); got != "db1: 1 GiB, 102 MiB/s" {
		t.Errorf("without a size: %q", got)
	}
	out.Reset()
	p.show(began.Add(20 * time.Second))
	if got := out.String(); got != "\rdb1: 1 GiB, 51\x1b[K" {
		t.Errorf("in 15 columns: %q", got)
	}
	width = 0
	out.Reset()
	p.show(began.Add(30 * time.Second))
	if out.Len() > 0 {
		t.Errorf("%q, and there is no terminal", &out)
	}
}
