package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// answerTime is how long the source waits for an answer before it says that
// it is waiting, and asks again. An order to prepare starts a process, so it
// has more, and that has memory to allocate: a second more for each GiB.
const (
	answerTime  = 5 * time.Second
	prepareTime = 60 * time.Second
)

// reach opens the control channel of the move, if there is none.
func (m *sourceMove) reach(ctx context.Context) error {
	if m.ctl != nil {
		return nil
	}
	h := controlHeader{Version: protoVersion, Token: m.entry.Token}
	ch, err := m.link.Open(ctx, tunnel.Spec{Kind: kindControl, Header: encodeJSON(h), Class: tunnel.Urgent})
	if err != nil {
		return fmt.Errorf("opening a control channel to %s: %w", m.entry.Peer, err)
	}
	listening, stop := context.WithCancel(m.g.ctx)
	answers, failed := make(chan control), make(chan error, 1)
	m.ctl, m.ctlStop, m.answers, m.ctlErr = ch, stop, answers, failed
	m.g.wg.Go(func() { listen(listening, ch, answers, failed) })
	return nil
}

// listen reads a control channel until it ends, and then says why.
func listen(ctx context.Context, ch *tunnel.Channel, answers chan<- control, failed chan<- error) {
	for {
		msg, err := ch.Recv(ctx)
		if err == nil {
			var c control
			if c, err = parseControl(msg.Data); err == nil {
				ch.Done(msg.Seq)
				select {
				case answers <- c:
					continue
				case <-ctx.Done():
					err = context.Cause(ctx)
				}
			}
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("closed by the peer")
		}
		failed <- err // capacity 1, and this is the only one
		close(failed)
		return
	}
}

// tell sends one message to the destination.
func (m *sourceMove) tell(ctx context.Context, c control) error {
	if _, err := m.ctl.Send(ctx, encodeJSON(c)); err != nil {
		return fmt.Errorf("telling %s to %s: %w", m.entry.Peer, c.Type, err)
	}
	return nil
}

// ask tells the destination something and returns its answer. When the channel
// fails, the next ask opens another.
func (m *sourceMove) ask(ctx context.Context, c control) (control, error) {
	limit := answerTime
	if c.Type == msgPrepare {
		limit = prepareTime + time.Duration(c.Spec.Memory>>30)*time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer for %v", limit))
	defer cancel()
	if err := m.reach(ctx); err != nil {
		return control{}, err
	}
	if err := m.tell(ctx, c); err != nil {
		m.lose(err)
		return control{}, err
	}
	for {
		select {
		case a := <-m.answers:
			if a.Type == msgLoaded || c.Type == msgAbort && (a.Type == msgFailed || a.Type == msgPrepared || a.Type == msgRefused) {
				continue // an answer to nothing, or to an order that we no longer wait for
			}
			return a, nil
		case err, ok := <-m.ctlErr:
			if !ok {
				err = errors.New("the control channel has ended")
			}
			m.lose(err)
			return control{}, fmt.Errorf("waiting for %s: %w", m.entry.Peer, err)
		case <-ctx.Done():
			return control{}, context.Cause(ctx)
		}
	}
}

// lose drops a control channel that has failed.
func (m *sourceMove) lose(why error) {
	if m.ctl == nil {
		return
	}
	m.ctlStop()
	m.ctl.Abort(why.Error())
	m.ctl = nil
}

// controlGrace is how long the destination may take to hear the last word.
const controlGrace = time.Minute

// endControl says that no order follows. The channel is free only when the
// destination has said the same, and all that it said has been read.
func (m *sourceMove) endControl(ctx context.Context) {
	m.ctl.CloseSend(ctx)
	ch, answers, failed, stop := m.ctl, m.answers, m.ctlErr, m.ctlStop
	m.g.wg.Go(func() {
		defer stop()
		late := time.After(controlGrace)
		for {
			select {
			case <-answers:
				continue
			case <-failed:
			case <-late:
			}
			ch.Abort("the move has ended")
			return
		}
	})
}

// tellProgress keeps the destination's `job show` up to date. It is not worth
// waiting for.
func (m *sourceMove) tellProgress(ctx context.Context) {
	if m.ctl == nil {
		return
	}
	if n, _ := m.ctl.Unacked(); n > 0 {
		return // the last one has not arrived yet
	}
	v := m.job.snapshot()
	if err := m.tell(ctx, control{Type: msgProgress, Progress: &v.Progress, State: v.State}); err != nil {
		m.g.log.Debug("telling the progress", "vm", v.VM, "err", err)
	}
}

// tellDrain has the destination take what is on its way for its store, whatever becomes
// of its process. Where it does not hear it, less of that arrives. ctl may be nil.
func (g *Gateway) tellDrain(ctl *tunnel.Channel, why error) {
	if ctl == nil {
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, drainTime)
	defer cancel()
	if _, err := ctl.Send(ctx, encodeJSON(control{Type: msgDrain, Reason: why.Error()})); err != nil {
		g.log.Debug("telling the destination to drain", "peer", ctl.Site(), "err", err)
	}
}

// tellAbort has the destination end its process, and waits a moment for its
// answer so that the next try finds the place free. It need not arrive: the
// destination never runs by itself, and asks when it is told nothing.
//
// It returns what the destination has found wrong with the stream, if that is
// why the move has come to its end; else why.
func (m *sourceMove) tellAbort(ctx context.Context, why error) error {
	if m.ctl == nil || !m.link.State().Up {
		return why
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	m.noteLost()
	v := m.job.snapshot()
	a, err := m.ask(ctx, control{Type: msgAbort, State: m.endState(why), Progress: &v.Progress, Reason: why.Error()})
	if err != nil {
		m.g.log.Debug("telling the destination to abort", "vm", m.entry.Spec.VM, "err", err)
		return why
	}
	m.distrust(a)
	if a.Cause == "" || errors.Is(why, errOperator) {
		return why
	}
	return destinationFailed(a.Cause)
}

func destinationFailed(why string) error { return fmt.Errorf("the destination has failed: %s", why) }

// distrust lets go of what the destination has found rotten.
func (m *sourceMove) distrust(a control) {
	if a.Rotten && m.s.store != nil {
		m.s.store.Forget() // the next try sends everything in full
	}
	if a.Store {
		m.g.dropStore(commonKey{m.entry.Peer, m.s.tenant})
	}
}
