// Command table prints the table of bench/wan.
//
//	go run ./bench/wan/table [-rows 100M,urgent] [-peers tcp-bbr,longhaul] [-seconds 10] [-wireguard PROGRAM] [-json]
//
// It needs root, and a machine that is not busy with other things.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/longhaul-project/longhaul/bench/wan"
	"github.com/longhaul-project/longhaul/bench/wanem"
)

// The program runs itself as the emulator and as the ends of the cells.
const (
	role         = "LONGHAUL_BENCH_WAN"
	roleEmulator = "emulator"
	roleEnd      = "end"
)

func main() {
	var err error
	switch os.Getenv(role) {
	case roleEmulator:
		err = wanem.Serve(os.Stdin, os.Stdout)
	case roleEnd:
		err = wan.ServeEnd(os.Stdin, os.Stdout)
	default:
		err = table()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func table() error {
	var o wan.Options
	rows := flag.String("rows", "", "rows whose name contains one of these, by commas; all if empty")
	peers := flag.String("peers", "", "names of peers, by commas; all if empty")
	list := flag.Bool("list", false, "print the names of rows and peers, and end")
	asJSON := flag.Bool("json", false, "print a line of JSON for each cell")
	seconds := flag.Float64("seconds", 10, "length of each cell")
	flag.Uint64Var(&o.Seed, "seed", 1, "seed of what the lines lose")
	flag.StringVar(&o.Wireguard, "wireguard", "", "the program of bench/wan/wireguard")
	flag.Parse()
	o.Time = time.Duration(*seconds * float64(time.Second))
	if o.Time < 3*time.Second {
		return fmt.Errorf("-seconds %g: at least 3", *seconds)
	}
	if o.Wireguard != "" {
		var err error
		if o.Wireguard, err = filepath.Abs(o.Wireguard); err != nil {
			return err
		}
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	o.Emulator = []string{"/usr/bin/env", role + "=" + roleEmulator, self()}
	o.End = []string{"/usr/bin/env", role + "=" + roleEnd, self()}
	rs, err := wan.SelectRows(split(*rows))
	if err != nil {
		return err
	}
	ps, err := wan.SelectPeers(split(*peers))
	if err != nil {
		return err
	}
	if *list {
		names(rs, ps)
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *asJSON {
		e := json.NewEncoder(os.Stdout)
		return wan.Run(ctx, rs, ps, o, func(r wan.Result) { _ = e.Encode(r) })
	}
	describe(ctx)
	wan.Head(os.Stdout)
	err = wan.Run(ctx, rs, ps, o, func(r wan.Result) { r.Print(os.Stdout) })
	fmt.Printf("# load at the end %s\n", load())
	return err
}

// self is this program's file; /proc/self would be env's.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func names(rows []wan.Row, peers []wan.Peer) {
	for _, r := range rows {
		fmt.Println("row ", r.Name)
	}
	for _, p := range peers {
		fmt.Println("peer", p.Name)
	}
}

// describe tells what was measured, where and when.
func describe(ctx context.Context) {
	commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	fmt.Printf("# table %s\n", strings.Join(os.Args[1:], " "))
	fmt.Printf("# commit %s, %s, %s, %s, %d cores, load %s\n", strings.TrimSpace(string(commit)),
		time.Now().UTC().Format(time.DateTime), runtime.Version(), processor(), runtime.NumCPU(), load())
	fmt.Println("# columns: see bench/wan/doc.go")
}

// load is the machine's average over 1, 5 and 15 minutes.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg") // "0.61 0.70 0.66 1/300 4711"
	averages, _, _ := strings.Cut(string(b), "/")
	return strings.TrimSpace(averages[:max(strings.LastIndexByte(averages, ' '), 0)])
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(l, "model name"); ok {
			return strings.TrimLeft(strings.TrimSpace(name), ": \t")
		}
	}
	return runtime.GOARCH
}
