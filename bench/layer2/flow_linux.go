package layer2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// flow is a TCP connection from one host to the other that sends all it can.
type flow struct {
	got  atomic.Int64
	end  func()
	wait sync.WaitGroup
}

// startFlow connects with a congestion controller, and sends.
func startFlow(from, to *nstest.NS, addr, congestion string) (*flow, error) {
	control := func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		}), err)
	}
	var ln net.Listener
	err := to.Do(func() (err error) {
		ln, err = (&net.ListenConfig{Control: control}).Listen(context.Background(), "tcp", addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := &flow{}
	ctx, cancel := context.WithCancel(context.Background())
	f.wait.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		// Else it would read what waits at the sender: megabytes on a slow line.
		defer context.AfterFunc(ctx, func() { c.Close() })()
		defer c.Close()
		for b := make([]byte, 256<<10); ; {
			n, err := c.Read(b)
			f.got.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	var c net.Conn
	for end := time.Now().Add(connectTime); ; { // a tunnel may only just be coming up
		err = from.Do(func() (err error) {
			c, err = (&net.Dialer{Control: control, Timeout: connectTime}).Dial("tcp", addr)
			return err
		})
		if err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		cancel()
		ln.Close()
		f.wait.Wait()
		return nil, fmt.Errorf("connecting the hosts: %w", err)
	}
	f.wait.Go(func() {
		for b := make([]byte, 256<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	f.end = func() { cancel(); c.Close(); ln.Close(); f.wait.Wait() }
	return f, nil
}

// connectTime is for a handshake on the worst of the lines, and one of wireguard
// before it, which is tried every 5 s.
const connectTime = 20 * time.Second

// usage is the processor time used until a moment, in seconds.
type usage struct {
	processes float64 // of some processes
	machine   float64 // of everything
}

// ticks of /proc in a second: USER_HZ, which Linux has fixed at 100.
const ticks = 100

func usageOf(pids []int) (u usage, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq steal (proc(5))
		if i >= 1 && i <= 7 && i != 4 && i != 5 {
			n, err := strconv.ParseFloat(f, 64)
			if err != nil {
				return u, err
			}
			u.machine += n / ticks
		}
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return u, err
		}
		s := string(b) // the name, in parentheses, may have spaces
		fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		for _, i := range []int{11, 12} { // utime and stime
			n, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return u, err
			}
			u.processes += n / ticks
		}
	}
	return u, nil
}
