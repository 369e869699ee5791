package layer2

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// storm is broadcasts that come into a device as if from its wire. The kernel makes
// them of one frame and hands them to the network stack, which is what its test of
// XDP programs does with live frames (BPF_PROG_RUN, BPF_F_TEST_XDP_LIVE_FRAMES,
// Documentation/bpf/bpf_prog_run.rst): no guest has to be paid for here that sends
// them, and what the bridge does with them is on the account of the storm's threads.
type storm struct {
	stop atomic.Bool
	wait sync.WaitGroup

	mu   sync.Mutex    // guards what follows
	cost time.Duration // of processor
	err  error
}

const (
	// stormRate is how many frames are sent in a second, if they can be, and stormThreads
	// by how many threads: a guest's network card may have more queues than one, and one
	// processor does not take a million through a bridge.
	stormRate    = 1e6
	stormThreads = 2
	// stormBatch is how many frames are handed over at a time: what a network
	// card's driver does (NAPI_POLL_WEIGHT).
	stormBatch = 64
	// stormStep is how often frames are sent, and stormBehind how much of what
	// could not be sent in time is made up for.
	stormStep   = time.Millisecond
	stormBehind = 20 * time.Millisecond
)

// startStorm has broadcasts come into a device.
func startStorm(ns *nstest.NS, device string) (*storm, error) {
	g, err := newGenerator(ns, device)
	if err != nil {
		return nil, fmt.Errorf("making the storm: %w", err)
	}
	s := &storm{}
	var threads sync.WaitGroup
	for range stormThreads {
		threads.Go(func() { s.note(ns.Do(func() error { return s.run(g) })) })
	}
	s.wait.Go(func() {
		threads.Wait()
		s.note(g.close())
	})
	return s, nil
}

// note keeps an error.
func (s *storm) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

// run is a thread: it sends its part until it is stopped.
func (s *storm) run(g *generator) error {
	before, err := threadTime()
	if err != nil {
		return err
	}
	for last := time.Now(); !s.stop.Load(); {
		time.Sleep(stormStep)
		now := time.Now()
		due := min(now.Sub(last), stormBehind)
		last = now
		if err := g.send(int(due.Seconds() * stormRate / stormThreads)); err != nil {
			return fmt.Errorf("sending the storm: %w", err)
		}
	}
	after, err := threadTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cost += after - before
	return err
}

// end stops the storm, and tells what it has cost.
func (s *storm) end() (cost time.Duration, err error) {
	s.stop.Store(true)
	s.wait.Wait()
	return s.cost, s.err
}

// threadTime is the processor time that this thread has used.
func threadTime() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_THREAD, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
