package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/cmd/longhaul/demo"
)

// version is set by the linker (Makefile, -X main.version) and by nobody else.
var version string

// wanArgument makes this program the WAN emulator of a demo: a process of its
// own, which is more exact than a busy one.
const wanArgument = "__wan"

func main() {
	if len(os.Args) == 2 && os.Args[1] == wanArgument {
		if err := wanem.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitFailed)
		}
		return
	}
	a := newApp()
	// Two places: the first signal asks a move to end, the second leaves.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	a.signals = signals
	os.Exit(a.run(os.Args[1:]))
}

// newApp chooses who does the work that is not the gateway's.
func newApp() *app {
	return &app{
		stdin:  os.Stdin,
		stdout: os.Stdout,
		stderr: os.Stderr,
		getenv: os.Getenv,
		enrol:  enrol,
		demo: func(ctx context.Context, o demo.Options) error {
			o.Emulator = []string{"/proc/self/exe", wanArgument}
			return demo.Run(ctx, o)
		},
	}
}
