package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/longhaul-project/longhaul/internal/qemu/launch"
	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// errShut answers who comes after Close.
var errShut = errors.New("host is closed")

// A monitor is the one connection to a QMP socket, for all who want it.
type monitor struct {
	path  string
	ready chan struct{} // closed when what follows is known
	*qmp.Client
	proc launch.Process // zero if it cannot be seen from here
	err  error

	refs int // guarded by monitors.mu
}

// monitors are the connections that are open.
type monitors struct {
	mu     sync.Mutex
	byPath map[string]*monitor
	shut   bool
}

// acquire returns the connection to a socket. Give it back with release.
func (ms *monitors) acquire(ctx context.Context, path string) (*monitor, error) {
	m, dial := ms.join(path)
	if m == nil {
		return nil, errShut
	}
	if dial {
		m.dial(context.WithoutCancel(ctx)) // others may wait for it; it is bounded
	}
	select {
	case <-m.ready:
	case <-ctx.Done():
		ms.release(m)
		return nil, fmt.Errorf("connecting to monitor %s: %w", path, context.Cause(ctx))
	}
	if m.err != nil {
		err := m.err
		ms.release(m)
		return nil, err
	}
	return m, nil
}

// join finds the connection, or makes the entry of one that is to be dialled.
func (ms *monitors) join(path string) (m *monitor, dial bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.shut {
		return nil, false
	}
	if m := ms.byPath[path]; m != nil && !m.dead() {
		m.refs++
		return m, false
	}
	m = &monitor{path: path, ready: make(chan struct{}), refs: 1}
	ms.byPath[path] = m
	return m, true
}

// dead tells whether the connection has been made and has ended.
func (m *monitor) dead() bool {
	select {
	case <-m.ready:
	default:
		return false
	}
	if m.err != nil {
		return true
	}
	select {
	case <-m.Done():
		return true
	default:
		return false
	}
}

func (m *monitor) dial(ctx context.Context) {
	defer close(m.ready)
	m.Client, m.err = qmp.Dial(ctx, m.path)
	if m.err != nil {
		return
	}
	if pid, err := m.PID(); err == nil && pid > 0 {
		m.proc, err = launch.Find(pid) // zero if it has just ended
		if err != nil && !ended(err) {
			m.err = errors.Join(err, m.Close())
		}
	}
}

// ended tells whether launch.Find has said that there is no such process.
func ended(err error) bool {
	return errors.Is(err, os.ErrProcessDone) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// release gives a connection back. The last one closes it.
func (ms *monitors) release(m *monitor) {
	ms.mu.Lock()
	m.refs--
	last := m.refs == 0
	if last && ms.byPath[m.path] == m {
		delete(ms.byPath, m.path)
	}
	ms.mu.Unlock()
	if !last {
		return
	}
	<-m.ready
	if m.err == nil {
		m.Close()
	}
}

// close ends all connections; who holds one sees it end.
func (ms *monitors) close() {
	ms.mu.Lock()
	ms.shut = true
	var open []*monitor
	for _, m := range ms.byPath {
		open = append(open, m)
	}
	ms.mu.Unlock()
	for _, m := range open {
		<-m.ready
		if m.err == nil {
			m.Close()
		}
	}
}
