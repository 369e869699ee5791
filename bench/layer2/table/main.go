// Command table prints the table of bench/layer2.
//
//	go run ./bench/layer2/table [-rows cable,bbr] [-modes vxlan,direct] [-seconds 10] [-storm] [-wireguard PROGRAM]
//
// It needs root, and a machine that is not busy with other things.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/longhaul-project/longhaul/bench/layer2"
	"github.com/longhaul-project/longhaul/bench/wanem"
)

// The program runs itself as the emulator and as the gateways.
const (
	role         = "LONGHAUL_BENCH_LAYER2"
	roleEmulator = "emulator"
	roleGateway  = "gateway"
)

func main() {
	var err error
	switch os.Getenv(role) {
	case roleEmulator:
		err = wanem.Serve(os.Stdin, os.Stdout)
	case roleGateway:
		err = layer2.ServeGateway(os.Stdin, os.Stdout)
	default:
		err = table()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func table() error {
	var o layer2.Options
	rows := flag.String("rows", "", "rows whose name contains one of these, by commas; all if empty")
	modes := flag.String("modes", "", "names of modes, by commas; all if empty")
	seconds := flag.Float64("seconds", 10, "length of each cell")
	storm := flag.Bool("storm", false, "measure a storm beside a bulk flow, in place of the table")
	flag.Uint64Var(&o.Seed, "seed", 1, "seed of what the lines lose")
	flag.StringVar(&o.Wireguard, "wireguard", "", "the program of bench/wan/wireguard")
	flag.Parse()
	o.Time = time.Duration(*seconds * float64(time.Second))
	var err error
	if o.Wireguard != "" {
		if o.Wireguard, err = filepath.Abs(o.Wireguard); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Emulator = []string{"/usr/bin/env", role + "=" + roleEmulator, self}
	o.Gateway = []string{"/usr/bin/env", role + "=" + roleGateway, self}
	rs, errRows := layer2.SelectRows(split(*rows))
	ms, errModes := layer2.SelectModes(split(*modes))
	if err := errors.Join(errRows, errModes); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	describe(ctx)
	if *storm {
		err = storms(ctx, ms, o)
	} else {
		fmt.Println(layer2.Head())
		err = layer2.Run(ctx, rs, ms, o, func(r layer2.Result) { fmt.Println(r.Print()) })
	}
	fmt.Printf("# load at the end %s\n", load())
	return err
}

// storms measures all modes of our own.
func storms(ctx context.Context, modes []layer2.Mode, o layer2.Options) error {
	fmt.Println(layer2.StormHead())
	for _, m := range modes {
		if m.Segment == "" {
			continue
		}
		r, err := layer2.Storm(ctx, m, o)
		if err != nil {
			return fmt.Errorf("storm, mode %s: %w", m.Name, err)
		}
		fmt.Println(r.Print())
	}
	return nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// describe tells what was measured, where and when.
func describe(ctx context.Context) {
	commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	fmt.Printf("# table %s\n# commit %s, %s, %s, %d cores, load %s\n", strings.Join(os.Args[1:], " "),
		strings.TrimSpace(string(commit)), time.Now().UTC().Format(time.DateTime), runtime.Version(), runtime.NumCPU(), load())
}

// load is the machine's average over 1, 5 and 15 minutes.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg") // "0.61 0.70 0.66 1/300 4711"
	averages, _, _ := strings.Cut(string(b), "/")
	return strings.TrimSpace(averages[:max(strings.LastIndexByte(averages, ' '), 0)])
}
