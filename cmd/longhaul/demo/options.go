// Package demo sets two sites and a WAN up on this machine and moves a real VM
// between them.
package demo

import (
	"io"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// Options of a demo, as the flags of "longhaul demo" say them.
type Options struct {
	Link   lab.Link // the emulated WAN
	Memory int64    // of the guest, in bytes
	Moves  int      // back and forth; at least 1
	Plain  bool     // do the same move by plain QEMU over TCP, to compare
	Keep   bool     // leave the lab up and say how to look into it
	JSON   bool     // one document on Stdout

	// TCP is the congestion control of the plain move. Empty means "cubic",
	// which Linux uses unless it is told otherwise.
	TCP string

	// Dirty is how many pages per second the guest rewrites while it moves.
	// Zero means DefaultDirty.
	Dirty int

	Stdout io.Writer // data
	Stderr io.Writer // progress

	// Show draws a job that runs; done clears what it has drawn.
	Show func(ev gateway.JobEvent)
	Done func()

	// Gateway is the path of longhauld. Empty: next to this program, then PATH.
	Gateway string
	// Emulator is the command line that serves wanem, see lab.Options.
	Emulator []string
}

// DefaultDirty is what a small busy server rewrites: plain QEMU over the demo's
// lossy line still converges then.
const DefaultDirty = 100

// MinMemory of the guest, in bytes: with less its kernel does not come up.
const MinMemory = 96 << 20
