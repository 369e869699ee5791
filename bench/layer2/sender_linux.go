package layer2

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// storm is a sender of broadcasts.
type storm struct {
	sent atomic.Int64
	stop atomic.Bool
	wait sync.WaitGroup
	err  error
	fd   int
}

// stormRate is the most that is sent, in frames a second.
const stormRate = 1e6

// stormBatch frames go to the kernel in one call.
const stormBatch = 256

// startStorm broadcasts from a device at stormRate, or as fast as one thread can: past the
// queueing discipline, and without a copy being made for who listens here.
func startStorm(ns *nstest.NS, device string) (*storm, error) {
	s := &storm{}
	err := ns.Do(func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}))
	})
	if err != nil {
		return nil, fmt.Errorf("opening the storm's socket: %w", err)
	}
	s.wait.Go(s.run)
	return s, nil
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func (s *storm) run() {
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x77\x88\xb6"), make([]byte, 46)...)
	vec := unix.Iovec{Base: &frame[0]}
	vec.SetLen(len(frame))
	msgs := make([]mmsghdr, stormBatch)
	for i := range msgs {
		msgs[i].hdr.Iov = &vec
		msgs[i].hdr.SetIovlen(1)
	}
	for start := time.Now(); !s.stop.Load(); {
		if ahead := time.Duration(float64(s.sent.Load())/stormRate*float64(time.Second)) - time.Since(start); ahead > 0 {
			time.Sleep(ahead)
		}
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&msgs[0])), stormBatch, 0, 0, 0)
		switch {
		case errno == 0:
			s.sent.Add(int64(n))
		case errno != unix.ENOBUFS && errno != unix.EAGAIN && errno != unix.EINTR:
			s.err = fmt.Errorf("sending the storm: %w", errno)
			return
		}
	}
}

// end stops the storm.
func (s *storm) end() error {
	s.stop.Store(true)
	s.wait.Wait()
	return errors.Join(s.err, unix.Close(s.fd))
}
