package bell

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Bell tells when a descriptor is ready. It is an epoll(7) set that has the
// descriptor, and rings once when asked (EPOLLONESHOT); the set itself is what the
// runtime watches, so that who waits takes no thread and no processor.
type Bell struct {
	fd     int
	events uint32
	set    *os.File
	raw    syscall.RawConn

	// Of Wait, which one goroutine calls at a time.
	ring  func(set uintptr) bool // made once, as it would be garbage for each wait
	armed bool
	got   [1]unix.EpollEvent
	err   error
}

// New makes one for events, EPOLLIN or EPOLLOUT, of a descriptor that the runtime does
// not watch. It borrows the descriptor until Close.
func New(fd int, events uint32) (*Bell, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll set: %w", err)
	}
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(fd)}); err != nil {
		return nil, errors.Join(fmt.Errorf("adding to an epoll set: %w", err), unix.Close(set))
	}
	if err := unix.SetNonblock(set, true); err != nil { // else the runtime would not watch it
		return nil, errors.Join(err, unix.Close(set))
	}
	b := &Bell{fd: fd, events: events, set: os.NewFile(uintptr(set), "epoll")}
	if b.raw, err = b.set.SyscallConn(); err != nil {
		return nil, errors.Join(err, b.set.Close())
	}
	b.ring = b.check
	return b, nil
}

// Wait returns when the descriptor is ready. After Close it fails with os.ErrClosed.
func (b *Bell) Wait() error {
	b.armed, b.err = false, nil
	if err := b.raw.Read(b.ring); err != nil {
		return os.ErrClosed // the only reason that there is
	}
	return b.err
}

// check arms the bell when it is called first, and then tells whether it has rung. The
// runtime calls it again when the set is ready, which it is at once if the descriptor
// was ready before.
func (b *Bell) check(set uintptr) bool {
	if !b.armed {
		b.armed = true
		b.err = unix.EpollCtl(int(set), unix.EPOLL_CTL_MOD, b.fd, &unix.EpollEvent{Events: b.events | unix.EPOLLONESHOT, Fd: int32(b.fd)})
		return b.err != nil
	}
	n, err := unix.EpollWait(int(set), b.got[:], 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		b.err = err
		return true
	}
	return n > 0
}

// Close ends a Wait.
func (b *Bell) Close() error { return b.set.Close() }
