package nstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// runDir is where `ip netns` keeps the names of namespaces.
const runDir = "/run/netns"

// An NS is a network namespace. All methods are safe for concurrent use.
type NS struct {
	name string // "" for an anonymous one
	fd   netns.NsHandle
	nl   *netlink.Handle

	closing sync.Once
	closed  error // what Close answered
}

// New makes an anonymous namespace with its loopback device up, and closes it
// when the test ends. Without the rights to do so the test is skipped, see Skip.
func New(t TB) *NS {
	t.Helper()
	NeedRoot(t)
	n, err := Create("")
	if errors.Is(err, unix.EPERM) {
		Skip(t, "may not make network namespaces")
	}
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing a network namespace: %v", err)
		}
	})
	return n
}

// Create makes a namespace with its loopback device up. A named one can be
// entered with `ip netns exec` and outlives the process until Close or Remove;
// an anonymous one (name "") ends with the last user of it.
func Create(name string) (*NS, error) {
	if strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return nil, fmt.Errorf("namespace name %q: %w", name, unix.EINVAL)
	}
	fd, err := unshare(name)
	if err != nil {
		return nil, err
	}
	n := &NS{name: name, fd: fd}
	if n.nl, err = netlink.NewHandleAt(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("opening netlink in namespace %q: %w", name, err), n.Close())
	}
	if err := n.Up("lo"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// unshare makes the namespace on a thread of its own, which is never unlocked
// and so ends with its goroutine: no other goroutine can land in it.
func unshare(name string) (netns.NsHandle, error) {
	type made struct {
		fd  netns.NsHandle
		err error
	}
	c := make(chan made, 1) // one answer; the maker need not wait for us
	go func() {
		runtime.LockOSThread()
		var m made
		if name == "" {
			m.fd, m.err = netns.New()
		} else {
			m.fd, m.err = netns.NewNamed(name)
		}
		if m.err != nil {
			m.err = fmt.Errorf("making network namespace %q: %w", name, m.err)
		}
		c <- m
	}()
	m := <-c
	return m.fd, m.err
}

// Open finds a namespace that an earlier Create named. Close removes it.
func Open(name string) (*NS, error) {
	fd, err := netns.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace %q: %w", name, err)
	}
	nl, err := netlink.NewHandleAt(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening netlink in namespace %q: %w", name, err), fd.Close())
	}
	return &NS{name: name, fd: fd, nl: nl}, nil
}

// Remove takes away the name of a namespace that a crashed run has left. It is
// no error when there is none.
func Remove(name string) error {
	path := filepath.Join(runDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting network namespace %q: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing network namespace %q: %w", name, err)
	}
	return nil
}

// Name is the name given to Create.
func (n *NS) Name() string { return n.name }

// FD is a file descriptor of the namespace, valid until Close.
func (n *NS) FD() int { return int(n.fd) }

// Path is a file that stands for the namespace, for nsenter and setns. It is
// valid in this process, and for a named namespace in any.
func (n *NS) Path() string {
	if n.name != "" {
		return filepath.Join(runDir, n.name)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.fd))
}

// Do calls f inside the namespace: sockets and TAPs that f opens, and
// processes that it starts, live there for good. Goroutines that f starts do
// not. f may call t.Fatal.
func (n *NS) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("finding the current network namespace: %w", err)
	}
	if err := netns.Set(n.fd); err != nil {
		runtime.UnlockOSThread()
		return errors.Join(fmt.Errorf("entering network namespace %q: %w", n.name, err), home.Close())
	}
	defer func() {
		// A thread that cannot go home stays locked, and ends with its goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	return f()
}

// Close lets go of the namespace and takes its name away. The kernel removes
// it, with its devices, once no process and no socket lives in it. A second
// Close does nothing.
func (n *NS) Close() error {
	n.closing.Do(func() {
		if n.nl != nil {
			n.nl.Close()
		}
		n.closed = n.fd.Close()
		if n.name != "" {
			n.closed = errors.Join(n.closed, Remove(n.name))
		}
	})
	return n.closed
}
