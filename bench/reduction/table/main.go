// Command table records the streams that are missing and prints the table of
// bench/reduction.
//
//	go run ./bench/reduction/table [-dir DIR] [-short] [-count N] [-cases LIST] [-methods LIST] [-json]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/longhaul-project/longhaul/bench/reduction"
	"github.com/longhaul-project/longhaul/bench/streams"
)

// table is what was asked for, and what came of it.
type table struct {
	streams streams.Options
	measure reduction.Options
	json    bool

	Place    string           `json:"place"`
	Recorded []streams.Stream `json:"recorded"`
	reduction.Report
}

func main() {
	var t table
	flag.StringVar(&t.streams.Dir, "dir", streams.Dir(), "cache of streams")
	flag.BoolVar(&t.streams.Short, "short", false, "streams of one minute of work instead of ten")
	flag.IntVar(&t.measure.Count, "count", 1, "how often each figure is measured; the shortest time counts")
	flag.Func("cases", "cases to measure, as second,back: cold, second, back, back with its disk, back busy, sparse, retry, known, scaling (default all)", list(&t.measure.Cases))
	flag.Func("methods", "beginnings of the names of methods to measure, as \"longhaul,zstd -1\" (default all)", list(&t.measure.Methods))
	flag.BoolVar(&t.json, "json", false, "print JSON")
	flag.Parse()
	t.streams.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	t.measure.Log = t.streams.Log
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := t.fill(ctx)
	if err == nil {
		err = t.print(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

// list takes the parts of a flag.
func list(to *[]string) func(string) error {
	return func(s string) error {
		*to = strings.Split(s, ",")
		return nil
	}
}

func (t *table) fill(ctx context.Context) (err error) {
	if t.Recorded, err = streams.Record(ctx, t.streams); err != nil {
		return err
	}
	content := make(map[string][]byte)
	for _, s := range t.Recorded {
		if content[s.Name], err = mapped(s.Path); err != nil {
			return fmt.Errorf("stream %s: %w", s.Name, err)
		}
	}
	t.Place = describe(ctx)
	t.Report, err = reduction.Run(ctx, reduction.Input{
		Deb1: content[streams.Deb1], Disk: content[streams.Disk], Calm: content[streams.Calm], Busy: content[streams.Busy], Deb2: content[streams.Deb2], Sparse: content[streams.Sparse],
	}, t.measure)
	return err
}

// mapped is the content of a file that nobody writes. It is in memory as far as it is
// used, so that streams which are not measured take none; it stays until the end.
func mapped(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	return syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
}

// notes stand above the table.
const notes = `MB/s: 10^6 bytes of stream per second of processor time, GOMAXPROCS=1; encode is scan, encode and compress.
second, back, back busy: deb2, deb1-calm, deb1-back after deb1. retry: deb1 after 90 % of it. known: deb1 after deb1.
back with its disk: deb1-calm after deb1-disk and deb1, in the other direction.
zstd --long: left is that of before and stream as one, minus that of before, and its window is 2 GiB; MB/s is over all.
Everything but zstd --long was decoded and compared.
`

func (t *table) print(out io.Writer) error {
	if t.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "\t")
		return e.Encode(t)
	}
	fmt.Fprintf(out, "# %s\n", t.Place)
	for _, s := range t.Recorded {
		fmt.Fprintf(out, "# %s: recorded %s with %s, %d s of work, %d rounds\n", s.Name, s.When.Format(time.DateTime), s.QEMU, s.Work, s.Rounds)
	}
	for line := range strings.Lines(notes) {
		fmt.Fprint(out, "# ", line)
	}
	fmt.Fprintln(out)
	return t.Report.Print(out)
}

// describe tells where and what was measured.
func describe(ctx context.Context) string {
	commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	load, _ := os.ReadFile("/proc/loadavg")
	averages, _, _ := strings.Cut(string(load), "/") // "0.61 0.70 0.66 1/300 4711"
	averages = averages[:max(strings.LastIndexByte(averages, ' '), 0)]
	return fmt.Sprintf("commit %s, %s, %s, %s, %d cores, load %s", strings.TrimSpace(string(commit)), time.Now().UTC().Format(time.DateTime),
		runtime.Version(), processorName(), runtime.NumCPU(), averages)
}

func processorName() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(l, "model name"); ok {
			return strings.TrimLeft(strings.TrimSpace(name), ": \t")
		}
	}
	return runtime.GOARCH
}
