package layer2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/wanem"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

// StormResult is what a storm does to a bulk flow of the link.
type StormResult struct {
	Mode         string
	Quiet, Storm float64 // goodput of the bulk without and with it, bits per second
	Frames       float64 // of the storm, a second
}

// Print writes it as a line.
func (r StormResult) Print() string {
	return fmt.Sprintf("storm %-12s bulk %7.1f Mbit/s, beside %9.0f broadcasts a second %7.1f Mbit/s: %5.1f%%",
		r.Mode, r.Quiet/1e6, r.Frames, r.Storm/1e6, 100*r.Storm/r.Quiet)
}

// Storm measures the bulk of a link, on an emulated line of 200 Mbit/s, before,
// while and after a guest broadcasts as fast as it can. What is without the storm
// is the mean of before and after, as a busy machine changes.
func Storm(ctx context.Context, m Mode, o Options) (res StormResult, err error) {
	line := wanem.Profile{Rate: 200e6, Delay: 10 * time.Millisecond}
	b, err := newBed(Row{Name: "storm", Line: line}, m, o)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	res.Mode = m.Name
	if _, err := b.procs[0].ask("bulk"); err != nil {
		return res, err
	}
	if err := rest(ctx, warmUp); err != nil {
		return res, err
	}
	before, err := b.bulk(ctx, o.Time)
	if err != nil {
		return res, err
	}
	s, err := startStorm(b.host[0], "eth0")
	if err != nil {
		return res, err
	}
	sent, start := s.sent.Load(), time.Now()
	res.Storm, err = b.bulk(ctx, o.Time)
	res.Frames = float64(s.sent.Load()-sent) / time.Since(start).Seconds()
	if err := errors.Join(err, s.end()); err != nil {
		return res, err
	}
	after, err := b.bulk(ctx, o.Time)
	res.Quiet = (before + after) / 2
	return res, err
}

// bulk is what arrives at the other side in a time, in bits per second.
func (b *bed) bulk(ctx context.Context, d time.Duration) (float64, error) {
	first, err := b.procs[1].ask("report")
	start := time.Now()
	if err := errors.Join(err, rest(ctx, d)); err != nil {
		return 0, err
	}
	last, err := b.procs[1].ask("report")
	return float64(last.Bulk-first.Bulk) * 8 / time.Since(start).Seconds(), err
}

// storm is a sender of broadcasts.
type storm struct {
	sent atomic.Int64
	stop atomic.Bool
	wait sync.WaitGroup
	err  error
	fd   int
}

// stormBatch frames go to the kernel in one call.
const stormBatch = 256

// startStorm broadcasts from a device as fast as one thread can: past the
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
	for !s.stop.Load() {
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
