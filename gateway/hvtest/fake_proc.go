package hvtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/page"
)

// errKilled ends everything that a process does.
var errKilled = errors.New("process has ended")

// A proc is a pretended hypervisor process. It outlives the handles by which
// a gateway holds it.
type proc struct {
	host     *FakeHost
	guest    Guest
	token    string // of a sink
	channels int    // of a sink: multifd connections that will come
	copy     uint64 // number in the ledger
	ctx      context.Context
	kill     context.CancelCauseFunc

	mu       sync.Mutex
	state    gateway.RunState
	mem      *memory
	memoryOK bool
	epoch    uint64
	handles  map[*handle]struct{}
	progress gateway.Progress
	out      *outgoing // the migration away, or the last one
	in       *incoming
}

func (h *FakeHost) newProc(g Guest) *proc {
	p := &proc{host: h, guest: g, copy: h.ledger.newCopy(), handles: make(map[*handle]struct{}), memoryOK: true}
	p.ctx, p.kill = context.WithCancelCause(context.Background())
	return p
}

// id is what no other process has.
func (p *proc) id() string { return fmt.Sprintf("copy %d", p.copy) }

// run executes the guest. The caller holds mu.
func (p *proc) run() {
	if p.state == gateway.Running || p.state == gateway.Gone {
		return
	}
	p.epoch = p.host.ledger.begin(p.guest.Name, p.host.name, p.copy, p.epoch, p.memoryOK)
	p.state = gateway.Running
	p.emit(gateway.EventResume, "")
}

// stop stops the guest; it tells whether it executed. The caller holds mu.
func (p *proc) stop() bool {
	if p.state != gateway.Running {
		return false
	}
	p.host.ledger.end(p.guest.Name, p.copy)
	p.state = gateway.Paused
	p.emit(gateway.EventStop, "")
	return true
}

// exit ends the process.
func (p *proc) exit(why string) {
	p.host.forget(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == gateway.Gone {
		return
	}
	if p.state == gateway.Running {
		p.host.ledger.end(p.guest.Name, p.copy)
	}
	p.state = gateway.Gone
	p.emit(gateway.EventExit, why)
	for h := range p.handles {
		h.end(why)
	}
	p.kill(errKilled)
}

// setStatus sets the status of the migration and tells of it. The caller holds mu.
func (p *proc) setStatus(s string) {
	p.progress.Status = s
	p.emit(gateway.EventStatus, s)
}

// emit tells all handles. The caller holds mu.
func (p *proc) emit(kind gateway.EventKind, text string) {
	for h := range p.handles {
		h.push(gateway.Event{Kind: kind, At: time.Now(), Text: text})
	}
}

func (p *proc) info() gateway.VMInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return gateway.VMInfo{
		Name: p.guest.Name, UUID: p.guest.UUID, Host: p.host.name, State: p.state, Memory: p.guest.Memory,
		NICs: p.guest.NICs, Disks: p.guest.Disks, Version: "fake 1.0",
	}
}

// String is one line: "db1 running 256 pages epoch 3".
func (p *proc) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := fmt.Sprintf("%s %s %d pages epoch %d", p.guest.Name, p.state, p.guest.Memory/page.Size, p.epoch)
	if p.progress.Status != "" {
		s += " migration " + p.progress.Status
	}
	return s
}

// maxEvents is how many events a handle keeps for a gateway that does not
// read: far more than one move has. One place more is for EventClosed, and one
// for an event that is late.
const maxEvents = 1024

// A handle is one control connection to a process.
type handle struct {
	p      *proc
	events chan gateway.Event
	late   chan gateway.Event // those that deliver has not taken yet; nil when none are late
	ended  bool               // guarded by p.mu
}

func (p *proc) open() *handle {
	h := &handle{p: p, events: make(chan gateway.Event, maxEvents+2)}
	if p.host.isSlow() {
		h.late = make(chan gateway.Event, maxEvents+1)
		p.host.wg.Go(h.deliver)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handles[h] = struct{}{}
	return h
}

// push never blocks. The caller holds p.mu.
func (h *handle) push(ev gateway.Event) {
	if len(h.events)+len(h.late) >= maxEvents {
		h.end("too many events that nobody reads")
		return
	}
	h.out() <- ev
}

// out is where events go first.
func (h *handle) out() chan<- gateway.Event {
	if h.late != nil {
		return h.late
	}
	return h.events
}

// end closes the handle. The caller holds p.mu.
func (h *handle) end(why string) {
	if h.ended {
		return
	}
	h.ended = true
	delete(h.p.handles, h)
	out := h.out()
	out <- gateway.Event{Kind: gateway.EventClosed, At: time.Now(), Text: why}
	close(out)
}

// Events implements gateway.Source and gateway.Sink.
func (h *handle) Events() <-chan gateway.Event { return h.events }

// Close implements gateway.Source and gateway.Sink.
func (h *handle) Close() error {
	h.p.mu.Lock()
	defer h.p.mu.Unlock()
	h.end("closed by this side")
	return nil
}

// Progress implements gateway.Source and gateway.Sink.
func (h *handle) Progress(ctx context.Context) (pr gateway.Progress, err error) {
	err = h.call(ctx, StepProgress, func() error {
		pr = h.p.progress
		return nil
	})
	return pr, err
}

// State implements gateway.Source and gateway.Sink.
func (h *handle) State(ctx context.Context) (s gateway.RunState, err error) {
	h.p.mu.Lock()
	gone := h.p.state == gateway.Gone
	h.p.mu.Unlock()
	if gone {
		return gateway.Gone, nil
	}
	err = h.call(ctx, StepState, func() error {
		if s = h.p.state; h.p.host.blur(h.p.guest.Name) {
			s = gateway.Unknown
		}
		return nil
	})
	return s, err
}

// call runs f under p.mu, as one command of the monitor.
func (h *handle) call(ctx context.Context, step Step, f func() error) error {
	return h.p.host.do(ctx, step, func() error {
		if err := h.p.monitor(ctx); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		h.p.mu.Lock()
		defer h.p.mu.Unlock()
		if h.p.state == gateway.Gone || h.ended {
			return fmt.Errorf("%s: %w: %w", step, net.ErrClosed, gateway.ErrUnavailable)
		}
		return f()
	})
}

// monitor waits until the process answers: not while a connection is silent.
func (p *proc) monitor(ctx context.Context) error {
	p.mu.Lock()
	in := p.in
	p.mu.Unlock()
	if in == nil {
		return nil
	}
	return in.waitPeeked(ctx)
}
