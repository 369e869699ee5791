package main

import (
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker (Makefile, -X main.version) and by nobody else.
var version string

func main() {
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
	}
}
