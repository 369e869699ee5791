package hvtest

import (
	"context"
	"errors"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
)

// holdBytes is where the tests hold or cut a stream: past the header, within
// the pages. It leaves more than what sockets buffer even of the smallest guest.
const holdBytes = 8 << 10

// again moves the VM for good, after a move that failed.
func again(t *testing.T, p Pair) {
	t.Helper()
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.start()
	m.load()
	m.commit()
	p.check(t, p.B)
}

// failed ends a move that went wrong: the VM runs at its source, and moves
// when it is tried again.
func (m *move) failed(p Pair) {
	m.t.Helper()
	m.want(m.src, gateway.Running)
	if err := m.sink.Discard(m.ctx); err != nil {
		m.t.Errorf("discarding: %v", err)
	}
	m.want(m.sink, gateway.Gone)
	m.close()
	p.check(m.t, p.A)
	again(m.t, p)
}

func testCancelIdle(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	if err := m.src.Cancel(m.ctx); err != nil {
		t.Errorf("cancelling nothing: %v", err)
	}
	m.failed(p)
}

func testCancelActive(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.leg.holdAt = holdBytes
	m.start()
	<-m.leg.held
	m.srcLog.await(t, gateway.EventStatus, "active")
	if err := m.src.Cancel(m.ctx); err != nil {
		t.Errorf("cancelling: %v", err)
	}
	m.failed(p)
}

func testCancelSwitchover(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.start()
	m.srcLog.await(t, gateway.EventStatus, "pre-switchover")
	if err := m.src.Cancel(m.ctx); err != nil {
		t.Errorf("cancelling: %v", err)
	}
	m.srcLog.await(t, gateway.EventResume, "")
	m.srcLog.inOrder(t, gateway.Event{Kind: gateway.EventStop}, gateway.Event{Kind: gateway.EventResume})
	m.failed(p)
}

// testCancelLate cancels when the destination has all and the source has not
// heard so.
func testCancelLate(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.leg.noShut = true
	m.start()
	m.srcLog.await(t, gateway.EventStatus, "pre-switchover")
	if err := m.src.Continue(m.ctx); err != nil {
		t.Fatalf("continuing: %v", err)
	}
	m.sinkLog.await(t, gateway.EventStatus, "completed")
	m.want(m.sink, gateway.Paused)
	if state, err := m.src.State(m.ctx); err != nil || state != gateway.Paused {
		t.Errorf("source is %q (error %v), want it paused", state, err)
	}
	if err := m.src.Cancel(m.ctx); err != nil {
		t.Errorf("cancelling: %v", err)
	}
	m.want(m.sink, gateway.Paused)
	m.failed(p)
}

func testLegBreaks(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.leg.cutAt = holdBytes
	m.start()
	m.breaks()
	if pr, err := m.src.Progress(m.ctx); err != nil || pr.Status != "failed" {
		t.Errorf("progress %+v, error %v", pr, err)
	}
	m.failed(p)
}

func testLegBreaksLate(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.start()
	m.srcLog.await(t, gateway.EventStatus, "pre-switchover")
	m.leg.close()
	// QEMU may see it now, or when it is told to go on.
	if err := m.src.Continue(m.ctx); err != nil {
		t.Logf("continuing on a broken leg: %v", err)
	}
	m.srcLog.await(t, gateway.EventStatus, "failed")
	m.failed(p)
}

func testSinkEnds(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.leg.holdAt = holdBytes
	m.start()
	<-m.leg.held
	m.discard()
	close(m.leg.release)
	m.breaks()
	m.failed(p)
}

// breaks waits until the source has noticed that its leg is gone. If sockets
// took all of a small guest it stands at the switchover by then, and looks at
// the leg again when it is told to go on.
func (m *move) breaks() {
	m.t.Helper()
	for continued := false; !continued; {
		events, more := m.srcLog.all()
		switch {
		case index(events, gateway.EventStatus, "failed") >= 0:
			return
		case index(events, gateway.EventStatus, "pre-switchover") >= 0:
			if err := m.src.Continue(m.ctx); err != nil {
				m.t.Logf("continuing on a broken leg: %v", err)
			}
			continued = true
			continue
		}
		select {
		case <-more:
		case <-m.ctx.Done():
			m.t.Fatalf("the source has not noticed that its leg is gone: %v", context.Cause(m.ctx))
		}
	}
	m.srcLog.await(m.t, gateway.EventStatus, "failed")
}

// testResumeMoved gives a VM back to its source when both copies are stopped
// and the commit has not been made.
func testResumeMoved(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.start()
	m.load()
	m.discard() // first, so that no other copy can run
	if err := m.src.Cancel(m.ctx); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("cancelling a finished migration: %v, want ErrBusy", err)
	}
	if err := m.src.Resume(m.ctx); err != nil {
		t.Fatalf("resuming: %v", err)
	}
	m.srcLog.await(t, gateway.EventResume, "")
	m.failed(p)
}

// attach finds the sink again, while the first handle is still open.
func (m *move) attach(h gateway.Host) {
	m.t.Helper()
	sink, err := h.Attach(m.ctx, m.spec)
	if err != nil {
		m.t.Fatalf("attaching: %v", err)
	}
	m.t.Cleanup(func() { sink.Close() })
	m.sink, m.leg.sink = sink, sink
	m.sinkLog = logEvents("sink again", sink.Events())
}

func testAttachEarly(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 2)
	m.attach(p.B)
	m.want(m.sink, gateway.Incoming)
	m.start()
	m.load()
	m.commit()
	p.check(t, p.B)
}

func testAttachLate(t *testing.T, p Pair) {
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.start()
	m.load()
	m.attach(p.B)
	m.want(m.sink, gateway.Paused)
	m.commit()
	p.check(t, p.B)
}

// testRestart loses both gateways when the VM is stopped everywhere, and
// finishes the move from what the hosts know.
func testRestart(t *testing.T, p Pair) {
	if p.Restart == nil {
		t.Skip("this adaptor's pair cannot restart a gateway")
	}
	m := newMove(t, p.A, p.B, p.VM, 0)
	m.start()
	m.load()
	m.leg.close()
	p.A, p.B = p.Restart(t, p.A), p.Restart(t, p.B)
	m.srcLog.await(t, gateway.EventClosed, "")
	m.sinkLog.await(t, gateway.EventClosed, "")
	src, err := p.A.Source(m.ctx, p.VM)
	if err != nil {
		t.Fatalf("opening the source again: %v", err)
	}
	m.src, m.srcLog = src, logEvents("source again", src.Events())
	m.want(m.src, gateway.Moved)
	m.attach(p.B)
	m.want(m.sink, gateway.Paused)
	m.commit()
	p.check(t, p.B)
}
