package wanem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A WAN joins two TAPs by two Lines.
type WAN struct {
	log   *slog.Logger
	start time.Time
	half  [2]*half
}

var _ Emulator = (*WAN)(nil)

// half is one direction: it reads one TAP and writes the other.
type half struct {
	name     string
	from, to int  // file descriptors
	joins    bool // to takes UDP in messages of many packets
	wake     int  // eventfd: the line has been changed
	start    time.Time
	log      *slog.Logger

	in     []byte   // a message as it is read
	out    [][]byte // packets on their way out, owned
	joined []byte   // some of them as one message

	mu   sync.Mutex // guards line; held for no I/O
	line *Line
}

// New makes a WAN between a and b, which stay the caller's and must outlive
// Run. Nothing crosses before Run.
func New(a, b *Tap, c Config) (*WAN, error) {
	if err := errors.Join(c.AB.Check(), c.BA.Check()); err != nil {
		return nil, err
	}
	w := &WAN{log: cmp.Or(c.Logger, slog.New(slog.DiscardHandler)), start: time.Now()}
	size := virtioHeader + etherLen + 4 + cmp.Or(c.MTU, 1500) // 4: an 802.1Q tag
	for d, p := range []Profile{c.AB, c.BA} {
		from, to := a, b
		if Direction(d) == BA {
			from, to = b, a
		}
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			w.closeWakes()
			return nil, fmt.Errorf("making an eventfd: %w", err)
		}
		w.half[d] = &half{
			name: Direction(d).String(), from: int(from.file.Fd()), to: int(to.file.Fd()), wake: wake,
			joins: joinsUDP(int(to.file.Fd())), start: w.start, log: w.log, in: make([]byte, maxMessage),
			line: NewLine(p, c.Seed+uint64(d)*0x9e3779b97f4a7c15, size),
		}
		w.half[d].line.lead = quantum(p)
	}
	// File.Fd puts descriptors into blocking mode.
	for _, h := range w.half {
		if err := unix.SetNonblock(h.from, true); err != nil {
			w.closeWakes()
			return nil, fmt.Errorf("setting %s non-blocking: %w", h.name, err)
		}
	}
	return w, nil
}

// Run forwards until ctx ends, and then returns nil. It is called once.
func (w *WAN) Run(ctx context.Context) error {
	defer w.closeWakes()
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range w.half {
		g.Go(func() error { return h.run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		for _, h := range w.half {
			h.poke()
		}
		return nil
	})
	return g.Wait()
}

func (w *WAN) closeWakes() {
	for _, h := range w.half {
		if h != nil {
			h.mu.Lock()
			unix.Close(h.wake)
			h.wake = -1
			h.mu.Unlock()
		}
	}
}

// Set changes one direction while it runs.
func (w *WAN) Set(d Direction, p Profile) error {
	if err := p.Check(); err != nil {
		return err
	}
	w.half[d].change(func(l *Line, now time.Duration) {
		l.Set(now, p)
		l.lead = quantum(p)
	})
	return nil
}

// Cut breaks one direction.
func (w *WAN) Cut(d Direction) error {
	w.half[d].change(func(l *Line, now time.Duration) { l.Cut(now) })
	return nil
}

// Heal mends one direction.
func (w *WAN) Heal(d Direction) error {
	w.half[d].change(func(l *Line, _ time.Duration) { l.Heal() })
	return nil
}

// Counters of one direction.
func (w *WAN) Counters(d Direction) (Counters, error) {
	h := w.half[d]
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.line.Counters(), nil
}

func (h *half) now() time.Duration { return time.Since(h.start) }

func (h *half) change(f func(*Line, time.Duration)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h.line, h.now())
	h.pokeLocked()
}

func (h *half) poke() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pokeLocked()
}

func (h *half) pokeLocked() {
	if h.wake >= 0 {
		one := [8]byte{1}
		unix.Write(h.wake, one[:]) // fails only when it is full, and then it is awake
	}
}

// batch is how many packets are read, at least, before those that are due go out
// again: a batch takes about 0.1 ms. As many go out between two looks at the clock.
const batch = 64

// leastQuantum and mostQuantum are how long a busy line rests between two rounds of
// reading and writing, and how early a frame may be delivered in return. A thread that
// wakes for every frame takes 25 us for each, mostly in the kernel's timers; rounds take
// 4. What arrives wakes the receiver as well, as network cards do that moderate their
// interrupts.
const (
	leastQuantum = 150 * time.Microsecond
	mostQuantum  = 500 * time.Microsecond
)

// quantum is a hundredth of the line's delay within these bounds.
func quantum(p Profile) time.Duration { return min(max(p.Delay/100, leastQuantum), mostQuantum) }

// run is the loop of one direction. It keeps its OS thread, which ends with
// it, because the thread's priority is raised.
func (h *half) run(ctx context.Context) error {
	runtime.LockOSThread()
	if err := Precise(); err != nil {
		h.log.Warn("wan emulator runs without real-time priority", "direction", h.name, "err", err)
	}
	for ctx.Err() == nil {
		if err := h.deliver(); err != nil {
			return err
		}
		n, err := h.take()
		if err != nil {
			return err
		}
		switch {
		case n >= batch: // there may be more
		case n == 0:
			err = h.wait()
		default:
			err = h.rest()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver writes what is due, together what the kernel takes together: it gives it
// on as a network card does (GRO).
func (h *half) deliver() error {
	for h.due() {
		for left := h.out; len(left) > 0; {
			n := 1
			if h.joins {
				n = joinable(left)
			}
			err := h.write(left[:n])
			left = left[n:]
			if errors.Is(err, unix.EBADF) || errors.Is(err, unix.EBADFD) {
				return fmt.Errorf("writing %s: %w", h.name, err)
			}
		}
	}
	return nil
}

// due fills out with packets that are due, if there are any.
func (h *half) due() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out = h.out[:0]
	for now := h.now(); len(h.out) < batch; {
		buf, _, ok := h.line.Deliver(now)
		if !ok {
			break
		}
		h.out = append(h.out, buf)
	}
	return len(h.out) > 0
}

// write gives the TAP packets as one message.
func (h *half) write(packets [][]byte) error {
	msg := packets[0]
	if len(packets) > 1 {
		h.joined = join(h.joined, packets)
		msg = h.joined
	}
	_, err := unix.Write(h.to, msg)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range packets {
		if err != nil {
			h.line.refused(len(p) - virtioHeader)
		}
		h.line.Recycle(p)
	}
	return err
}

// take reads a batch, and tells how many packets came.
func (h *half) take() (n int, err error) {
	for n < batch {
		size, err := unix.Read(h.from, h.in)
		switch {
		case err == nil:
			n += h.arrive(h.in[:size])
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return n, nil
		default:
			return n, fmt.Errorf("reading %s: %w", h.name, err)
		}
	}
	return n, nil
}

// arrive puts the packets of a message on the line, and counts them.
func (h *half) arrive(msg []byte) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	give := func(packet []byte, size int) {
		n++
		switch {
		case len(packet) > virtioHeader:
			h.line.Arrive(now, packet, virtioHeader)
			return
		case packet != nil:
			h.line.Recycle(packet)
		}
		h.line.refused(size - virtioHeader)
	}
	if split(msg, h.line.Buffer, give) {
		return n
	}
	buf := h.line.Buffer()
	if len(buf) < len(msg) {
		give(buf[:0], len(msg))
		return n
	}
	give(buf[:copy(buf, msg)], len(msg))
	return n
}

// rest gives further frames time to come.
func (h *half) rest() error {
	h.mu.Lock()
	ts := unix.NsecToTimespec(int64(h.line.lead))
	h.mu.Unlock()
	if err := unix.Nanosleep(&ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("resting on %s: %w", h.name, err)
	}
	return nil
}

// wait sleeps until a frame comes, a frame is due or the line changes.
func (h *half) wait() error {
	h.mu.Lock()
	at, ok := h.line.Next()
	h.mu.Unlock()
	var timeout *unix.Timespec // nil waits for ever
	if ok {
		left := at - h.now()
		if left <= 0 {
			return nil
		}
		ts := unix.NsecToTimespec(int64(left))
		timeout = &ts
	}
	fds := []unix.PollFd{{Fd: int32(h.from), Events: unix.POLLIN}, {Fd: int32(h.wake), Events: unix.POLLIN}}
	if _, err := unix.Ppoll(fds, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("waiting for %s: %w", h.name, err)
	}
	if fds[1].Revents != 0 {
		var count [8]byte
		unix.Read(h.wake, count[:]) // resets it
	}
	return nil
}

// Precise makes the calling thread wake on time: SCHED_FIFO at the lowest
// real-time priority, and no timer slack (50 us by default, prctl(2)).
func Precise() error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting the timer slack: %w", err)
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("asking for SCHED_FIFO: %w", err)
	}
	return nil
}
