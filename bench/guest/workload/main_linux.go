// Command workload is what a guest of the lab runs: it fills memory and disk
// with content that can be proved, rewrites it, checks it when asked, and
// serves sessions that must survive a move. It uses the standard library only,
// so that it can be built from its embedded sources on any machine with Go.
//
// It is process 1 of the guest: when it ends, the kernel panics, and the lab
// notices.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/guest/pages"
)

// guest is all that the workload keeps.
type guest struct {
	boot   string
	start  time.Time
	beat   atomic.Uint64
	memory *memory
	disk   *disk // nil without one
	files  *files
	dirty  dirtier
}

func main() {
	seed := flag.Uint64("seed", 1, "seed of all content")
	fill := flag.Int("fill", 85, "per cent of the free memory to fill")
	hard := flag.Bool("hard", false, "content that cannot be reduced")
	device := flag.String("disk", "", "block device to fill")
	rate := flag.Int("rate", 0, "pages to rewrite each second")
	flag.Parse()
	src := pages.New(*seed)
	if *hard {
		src = pages.Hard(*seed)
	}
	if err := run(src, *fill, *device, *rate); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(src *pages.Source, fill int, device string, rate int) error {
	g := &guest{boot: bootID(), start: time.Now()}
	var err error
	if device != "" {
		if g.disk, err = openDisk(device, src); err != nil {
			return err
		}
	}
	if g.files, err = readFiles("/bin", "/lib", "/workload"); err != nil {
		return err
	}
	if g.memory, err = fillMemory(src, fill); err != nil {
		return err
	}
	g.dirty.set(control.Dirty{Rate: rate, Sparse: 75})
	failed := make(chan error, 4) // one for each goroutine below
	for port, serve := range map[int]func(net.Conn){control.SessionPort: g.session, control.Port: g.control} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		go func() { failed <- accept(l, serve) }()
	}
	go func() { failed <- g.heartbeat() }()
	go func() { failed <- g.dirtyForEver() }()
	fmt.Printf("longhaul guest: ready, %d pages, boot %s, %v\n", len(g.memory.versions), g.boot, time.Since(g.start).Round(time.Millisecond))
	return <-failed
}

func bootID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}

// heartbeat counts guest time, and signs the last block of the disk with it
// once in ten beats: a second copy of this guest on the same disk would find
// the signature to be another's.
func (g *guest) heartbeat() error {
	for range time.Tick(control.Beat * time.Millisecond) {
		n := g.beat.Add(1)
		if g.disk != nil && n%10 == 0 {
			if err := g.disk.sign(g.boot, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *guest) stats() *control.Stats {
	s := &control.Stats{
		Boot: g.boot, Uptime: time.Since(g.start).Milliseconds(), Heartbeat: g.beat.Load(),
		Pages: int64(len(g.memory.versions)), Rewrites: g.memory.rewrites.Load(), Dirty: g.dirty.get(),
	}
	if g.disk != nil {
		s.Blocks, s.Writes, s.Foreign = int64(len(g.disk.versions)), g.disk.writes.Load(), g.disk.foreign.Load()
	}
	return s
}

func (g *guest) verify() *control.Verdict {
	start := time.Now()
	v := &control.Verdict{}
	g.memory.verify(v)
	if g.disk != nil {
		g.disk.verify(v)
	}
	g.files.verify(v)
	v.Took = time.Since(start).Milliseconds()
	return v
}
