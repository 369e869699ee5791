package hvtest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/longhaul-project/longhaul/gateway"
)

// FakeHost is a machine that runs pretended hypervisors. It implements
// gateway.Host. The machine goes on while gateways come and go; Close ends it.
type FakeHost struct {
	name   string
	ledger *Ledger
	pipe   func() (near, far net.Conn, err error)
	wg     sync.WaitGroup // of migrations, out and in, and of late events
	slow   slowness

	mu      sync.Mutex
	procs   []*proc
	faults  []*Fault
	breakAt int64
	blurred string // the VM whose state is not told
	blurs   int    // times
	log     []string
}

var _ gateway.Host = (*FakeHost)(nil)

// NewFakeHost returns a host without VMs.
func NewFakeHost(name string, l *Ledger) *FakeHost {
	return &FakeHost{name: name, ledger: l, pipe: socketPair}
}

// UseMemory makes Sink.Dial return connections in memory, which a
// testing/synctest bubble knows of, rather than unix sockets.
func (h *FakeHost) UseMemory() {
	h.pipe = func() (net.Conn, net.Conn, error) {
		near, far := net.Pipe()
		return near, far, nil
	}
}

// Add starts a VM that runs here.
func (h *FakeHost) Add(g Guest) {
	p := h.newProc(g.withDefaults())
	p.mem = newMemory(p.guest)
	p.mu.Lock()
	p.run()
	p.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.procs = append(h.procs, p)
}

// Close ends all processes and waits for them.
func (h *FakeHost) Close() {
	for _, p := range h.all() {
		p.exit("machine switched off")
	}
	h.wg.Wait()
}

// Crash ends every process of the VM, like kill -9.
func (h *FakeHost) Crash(vm string) {
	for _, p := range h.all() {
		if p.guest.Name == vm {
			p.exit("killed")
		}
	}
}

// Pause stops the VM, as an operator may.
func (h *FakeHost) Pause(vm string) {
	for _, p := range h.all() {
		if p.guest.Name == vm {
			p.mu.Lock()
			p.stop()
			p.mu.Unlock()
		}
	}
}

// DropGateway closes all control connections, as the death of a gateway does.
func (h *FakeHost) DropGateway() {
	for _, p := range h.all() {
		p.mu.Lock()
		for handle := range p.handles {
			handle.end("gateway died")
		}
		p.mu.Unlock()
	}
}

// Memory returns a copy of the guest memory of the VM's copy here, or nil.
func (h *FakeHost) Memory(vm string) []byte {
	for _, p := range h.all() {
		if p.guest.Name == vm {
			p.mu.Lock()
			defer p.mu.Unlock()
			return slices.Clone(p.mem.bytes)
		}
	}
	return nil
}

// Count returns the number of processes of the VM here, whatever their state.
func (h *FakeHost) Count(vm string) (n int) {
	for _, p := range h.all() {
		if p.guest.Name == vm {
			n++
		}
	}
	return n
}

// String lists the processes, one a line, sorted.
func (h *FakeHost) String() string {
	var lines []string
	for _, p := range h.all() {
		lines = append(lines, p.String()+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Log returns the deeds that leave no state, in order, such as "announce db1".
func (h *FakeHost) Log() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.log)
}

func (h *FakeHost) note(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, line)
}

func (h *FakeHost) all() []*proc {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.procs)
}

func (h *FakeHost) forget(p *proc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.procs = slices.DeleteFunc(h.procs, func(q *proc) bool { return q == p })
}

// Name implements gateway.Host.
func (h *FakeHost) Name() string { return h.name }

// VMs implements gateway.Host.
func (h *FakeHost) VMs(ctx context.Context) (vms []gateway.VMInfo, err error) {
	err = h.do(ctx, StepVMs, func() error {
		for _, p := range h.all() {
			vms = append(vms, p.info())
		}
		return nil
	})
	return vms, err
}

// Source implements gateway.Host.
func (h *FakeHost) Source(ctx context.Context, vm string) (src gateway.Source, err error) {
	err = h.do(ctx, StepSource, func() error {
		p, err := h.find(vm)
		if err != nil {
			return err
		}
		src = &fakeSource{p.open()}
		return nil
	})
	return src, err
}

// Reopen implements gateway.Host. It breaks where Source does.
func (h *FakeHost) Reopen(ctx context.Context, vm, process string) (src gateway.Source, err error) {
	err = h.do(ctx, StepSource, func() error {
		for _, p := range h.all() {
			if p.id() == process && p.guest.Name == vm {
				src = &fakeSource{p.open()}
				return nil
			}
		}
		if p, err := h.find(vm); err == nil {
			return fmt.Errorf("%s at %s: %s has ended, and %s has its name: %w", vm, h.name, process, p.id(), gateway.ErrNoVM)
		}
		return fmt.Errorf("%s at %s: %s has ended: %w", vm, h.name, process, gateway.ErrNoVM)
	})
	return src, err
}

// find picks the VM's process that matters most: one that runs, else one that
// can, else what is left of a move.
func (h *FakeHost) find(vm string) (*proc, error) {
	order := []gateway.RunState{gateway.Running, gateway.Paused, gateway.Moved}
	var best *proc
	rank, incoming, several := len(order), false, false
	for _, p := range h.all() {
		if p.guest.Name != vm {
			continue
		}
		state := p.info().State
		incoming = incoming || state == gateway.Incoming
		if i := slices.Index(order, state); i >= 0 && i <= rank {
			several = i == rank
			best, rank = p, i
		}
	}
	switch {
	case several:
		return nil, fmt.Errorf("several processes of %s at %s are %s: %w", vm, h.name, order[rank], gateway.ErrBusy)
	case best != nil:
		return best, nil
	case incoming:
		return nil, fmt.Errorf("%s at %s waits for a stream: %w", vm, h.name, gateway.ErrBusy)
	}
	return nil, fmt.Errorf("%s at %s: %w", vm, h.name, gateway.ErrNoVM)
}

// Prepare implements gateway.Host.
func (h *FakeHost) Prepare(ctx context.Context, spec gateway.Spec) (sink gateway.Sink, err error) {
	var p *proc
	defer func() {
		if p != nil && err != nil && ctx.Err() != nil { // as Prepare promises
			p.exit("nobody waits for it")
		}
	}()
	err = h.do(ctx, StepPrepare, func() error {
		if token, err := hex.DecodeString(spec.Token); err != nil || len(token) != 16 {
			return fmt.Errorf("token %q: %w", spec.Token, gateway.ErrInvalid)
		}
		if h.withToken(spec.Token) != nil {
			return fmt.Errorf("destination with token %s: %w", spec.Token, gateway.ErrExists)
		}
		if p, err := h.find(spec.VM); err == nil {
			return fmt.Errorf("%s is %s at %s: %w", spec.VM, p.info().State, h.name, gateway.ErrExists)
		}
		g, err := guestOf(spec)
		if err != nil {
			return err
		}
		p = h.newSink(g.withDefaults(), spec)
		sink = &fakeSink{p.open()}
		return nil
	})
	return sink, err
}

func (h *FakeHost) newSink(g Guest, spec gateway.Spec) *proc {
	p := h.newProc(g)
	p.token, p.channels = spec.Token, spec.Channels
	p.mem = newMemory(Guest{Name: g.Name, Memory: 0})
	p.mem.bytes = make([]byte, g.Memory+romSize)
	p.state = gateway.Incoming
	p.in = newIncoming(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.procs = append(h.procs, p)
	return p
}

func (h *FakeHost) withToken(token string) *proc {
	for _, p := range h.all() {
		if p.token == token {
			return p
		}
	}
	return nil
}

// Attach implements gateway.Host.
func (h *FakeHost) Attach(ctx context.Context, spec gateway.Spec) (sink gateway.Sink, err error) {
	err = h.do(ctx, StepAttach, func() error {
		p := h.withToken(spec.Token)
		if p == nil {
			return fmt.Errorf("destination of %s with token %s: %w", spec.VM, spec.Token, gateway.ErrNoVM)
		}
		sink = &fakeSink{p.open()}
		return nil
	})
	return sink, err
}

// socketPair returns two connected unix sockets, as QEMU's own would be.
func socketPair() (near, far net.Conn, err error) {
	syscall.ForkLock.RLock() // SOCK_CLOEXEC is Linux's
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("making a pair of sockets: %w", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "leg")
		conns[i], err = net.FileConn(f) // duplicates the descriptor
		f.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("making a pair of sockets: %w", err)
		}
	}
	return conns[0], conns[1], nil
}
