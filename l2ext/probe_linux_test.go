package l2ext_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// probed is what a client saw of a VM.
type probed struct {
	lost int
	gap  time.Duration // the longest time without an answer
}

// arrivals notes when answers came.
type arrivals struct {
	mu sync.Mutex // guards what follows
	at []time.Time
}

func (a *arrivals) note() {
	a.mu.Lock()
	a.at = append(a.at, time.Now())
	a.mu.Unlock()
}

// quiet tells whether nothing came for a while.
func (a *arrivals) quiet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at) == 0 || time.Since(a.at[len(a.at)-1]) > 150*time.Millisecond
}

// all tells whether n answers have come.
func (a *arrivals) all(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.at) >= n
}

func (a *arrivals) gap() (longest time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 1; i < len(a.at); i++ {
		longest = max(longest, a.at[i].Sub(a.at[i-1]))
	}
	return longest
}

// lateAnswer is how long probe waits for another answer when some are missing.
const lateAnswer = 300 * time.Millisecond

// probe sends numbered datagrams to an echo at 1 kHz until stop is called.
func probe(t testing.TB, ns *nstest.NS, addr string) (stop func() probed) {
	t.Helper()
	c := dialUDP(t, ns, addr)
	var answers arrivals
	var wg sync.WaitGroup
	sent := 0
	wg.Go(func() {
		for b := make([]byte, 100); ; {
			if _, err := c.Read(b); errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			} else if err == nil {
				answers.note()
			}
		}
	})
	sendDone := everyMilli(func() {
		c.Write([]byte(fmt.Sprintf("%08d", sent)))
		sent++
	})
	return func() probed {
		sendDone()
		// On a busy machine answers may come after a pause: they are not lost for that.
		for last := time.Now(); !answers.all(sent) && time.Since(last) < lateAnswer; time.Sleep(time.Millisecond) {
			if !answers.quiet() {
				last = time.Now()
			}
		}
		c.Close()
		wg.Wait()
		return probed{lost: sent - len(answers.at), gap: answers.gap()}
	}
}

// everyMilli calls f every millisecond until stop is called, which waits.
func everyMilli(f func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				f()
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// echoTCP answers connections at an address of a namespace until the test ends.
func echoTCP(t testing.TB, ns *nstest.NS, addr string) {
	t.Helper()
	var ln net.Listener
	check(t, ns.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }))
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); io.Copy(c, c) })
		}
	})
}

// probeTCP is probe with one connection, on which nothing is lost for good.
func probeTCP(t testing.TB, ns *nstest.NS, addr string) (stop func() probed) {
	t.Helper()
	var c net.Conn
	check(t, ns.Do(func() (err error) { c, err = net.DialTimeout("tcp", addr, l2exttest.Patience); return err }))
	var answers arrivals
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := make([]byte, 4096); ; {
			if _, err := c.Read(b); err != nil {
				return
			}
			answers.note()
		}
	})
	sendDone := everyMilli(func() { c.Write([]byte("12345678")) })
	return func() probed {
		sendDone()
		until(t, "answers stop", answers.quiet)
		c.Close()
		wg.Wait()
		return probed{gap: answers.gap()}
	}
}

func median[T int | time.Duration](xs []T) T {
	xs = slices.Clone(xs)
	slices.Sort(xs)
	return xs[len(xs)/2]
}
