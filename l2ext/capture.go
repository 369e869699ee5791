package l2ext

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Captured is a frame that crossed a segment, or that came to the gateway to
// cross.
type Captured struct {
	At     time.Time
	Frame  []byte // at most the first Snap bytes
	Len    int    // of the whole frame
	Inward bool   // from another site
}

// CaptureOptions bound a capture.
type CaptureOptions struct {
	Snap int // bytes taken of each frame; 0 means all
}

const (
	maxCaptures     = 8       // of one segment at one time: each costs a copy of each frame
	captureQueue    = 1024    // frames that wait for who captures; more are counted as missed
	captureMaxBytes = 4 << 20 // of them; a jumbo frame has 9 KiB
)

// taps are the captures of one segment that run.
type taps struct {
	list    atomic.Pointer[[]*tap] // nil or empty while there is none, which is nearly always
	mu      sync.Mutex             // makes changes of list follow each other, and guards
	running int                    // captures, also by the kernel
}

type tap struct {
	snap   int
	frames chan Captured // captureQueue
	held   atomic.Int64  // bytes in frames
	missed atomic.Uint64
}

// see gives a frame to all captures. It copies, and never waits.
func (t *taps) see(now time.Time, frame []byte, inward bool) {
	list := t.list.Load()
	if list == nil {
		return
	}
	for _, c := range *list {
		b := frame[:min(len(frame), c.snap)]
		if c.held.Load() > captureMaxBytes {
			c.missed.Add(1)
			continue
		}
		select {
		case c.frames <- Captured{At: now, Frame: slices.Clone(b), Len: len(frame), Inward: inward}:
			c.held.Add(int64(len(b)))
		default:
			c.missed.Add(1)
		}
	}
}

// enter makes room for one capture more.
func (t *taps) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running >= maxCaptures {
		return fmt.Errorf("l2ext: %d captures run already", t.running)
	}
	t.running++
	return nil
}

func (t *taps) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
}

func (t *taps) add(c *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var next []*tap
	if list := t.list.Load(); list != nil {
		next = slices.Clone(*list)
	}
	next = append(next, c)
	t.list.Store(&next)
}

func (t *taps) remove(c *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(*t.list.Load()), func(o *tap) bool { return o == c })
	if len(next) == 0 {
		t.list.Store(nil)
		return
	}
	t.list.Store(&next)
}

// Capture calls f with each frame that comes to the gateway to cross a segment,
// and with each that another site sends, until ctx ends or f fails. In mode Direct
// these are the frames that the kernel sends to other sites and gets from them. Frames
// that come faster than f takes them are left out; missed is how many. The error is
// that of f, nil when ctx has ended.
func (m *Manager) Capture(ctx context.Context, name string, o CaptureOptions, f func(Captured) error) (missed uint64, err error) {
	var seg *segment
	for _, s := range m.segments() {
		if s.Name == name {
			seg = s
		}
	}
	if seg == nil {
		return 0, fmt.Errorf("l2ext: capturing segment %s: there is none", name)
	}
	if o.Snap <= 0 {
		o.Snap = 1 << 16
	}
	if err := seg.taps.enter(); err != nil {
		return 0, err
	}
	defer seg.taps.leave()
	if seg.Mode == Direct {
		missed, err = m.captureKernel(ctx, seg, o, f)
	} else {
		missed, err = m.captureHere(ctx, seg, o, f)
	}
	if now := m.segments()[seg.VNI]; now != nil {
		now.counts.add(CaptureMissed, int(missed))
	}
	return missed, err
}

// captureHere captures what the gateway carries.
func (m *Manager) captureHere(ctx context.Context, seg *segment, o CaptureOptions, f func(Captured) error) (missed uint64, err error) {
	c := &tap{snap: o.Snap, frames: make(chan Captured, captureQueue)}
	seg.taps.add(c)
	defer seg.taps.remove(c)
	for {
		select {
		case <-ctx.Done():
			return c.missed.Load(), nil
		case <-m.done:
			return c.missed.Load(), nil
		case p := <-c.frames:
			c.held.Add(-int64(len(p.Frame)))
			if err := f(p); err != nil {
				return c.missed.Load(), err
			}
		}
	}
}

// captureKernel captures what the kernel carries.
func (m *Manager) captureKernel(ctx context.Context, seg *segment, o CaptureOptions, f func(Captured) error) (missed uint64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-m.done:
			cancel()
		case <-ctx.Done():
		}
	})
	return m.cfg.Host.Capture(ctx, seg.VNI, o, f)
}
