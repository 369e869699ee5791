package gateway

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/tunnel"
)

// queryEvery is how often a destination that has lost its control channel
// asks the source what has become of the move.
const queryEvery = 3 * time.Second

// neverRan is why a move was given up, if nothing more is known.
const neverRan = "ended before the VM ran there"

// tellEnd answers an order about a move that is over, or that never was.
func (g *Gateway) tellEnd(token, site string) control {
	e, ok, err := g.journal.Get(token, RoleDestination)
	switch {
	case err != nil:
		return control{Type: msgFailed, Reason: err.Error()}
	case !ok || e.Peer != site:
		return control{Type: msgUnknown}
	case e.Step == StepAborted:
		return control{Type: msgAborted, Reason: cmp.Or(e.Job.Error, neverRan)}
	case e.Step == StepDone:
		return control{Type: msgRunning}
	}
	return control{Type: msgFailed, Reason: "the move is being taken up"}
}

// lostControl hears that a control channel has ended. A move that still waits
// for orders asks for them.
func (g *Gateway) lostControl(token string, ch *tunnel.Channel, why error) {
	m := g.sinkMove(token)
	if m == nil {
		return
	}
	m.mu.Lock()
	current := m.ctl == ch
	if current {
		m.ctl = nil
	}
	ask := current && m.entry.Open() && !m.asking && g.ctx.Err() == nil
	m.asking = m.asking || ask
	m.mu.Unlock()
	if ask {
		g.log.Info("control channel lost, asking the source", "peer", ch.Site(), "vm", m.vm, "err", why)
		g.wg.Go(func() { m.query(g.ctx) })
	}
}

// query asks the source what has become of the move, until an order has come.
// One runs at a time: who starts it has set asking.
func (m *sinkMove) query(ctx context.Context) {
	for {
		select {
		case <-time.After(m.g.patience.query):
		case <-ctx.Done():
			return
		}
		m.mu.Lock()
		answered := m.ctl != nil || !m.entry.Open()
		m.asking = !answered
		m.mu.Unlock()
		if answered {
			return
		}
		if link := m.g.node.Link(m.peer); link != nil && link.State().Up {
			m.queryOnce(ctx)
		}
	}
}

// queryOnce asks, and does what the answer says.
func (m *sinkMove) queryOnce(ctx context.Context) {
	c, err := m.outcome(ctx)
	if err != nil {
		m.g.log.Debug("asking the source", "peer", m.peer, "vm", m.vm, "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch c.Type {
	case msgAbort:
		m.abandon(ctx, fmt.Errorf("site %s: %s", m.entry.Peer, c.Reason))
	case msgDone:
		m.sourceEnded(ctx, c)
	case msgUnknown:
		if m.entry.Open() {
			m.orphan()
		}
	}
}

// outcome asks the source what has become of the move.
func (m *sinkMove) outcome(ctx context.Context) (c control, err error) {
	link := m.g.node.Link(m.peer)
	if link == nil {
		return c, ErrNoSite
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	h := controlHeader{Version: protoVersion, Token: m.job.token}
	ch, err := link.Open(ctx, tunnel.Spec{Kind: kindControl, Header: encodeJSON(h), Class: tunnel.Urgent})
	if err != nil {
		return c, err
	}
	defer ch.Abort("answered")
	if _, err := ch.Send(ctx, encodeJSON(control{Type: msgQuery})); err != nil {
		return c, err
	}
	msg, err := ch.Recv(ctx)
	if err != nil {
		return c, err
	}
	return parseControl(msg.Data)
}

// askFirst asks a peer that announces a move about an earlier one of the same VM
// that waits here for orders: the peer may have ended it when we could not be told.
func (g *Gateway) askFirst(ctx context.Context, peer string, c control) {
	if c.Spec == nil {
		return
	}
	for _, m := range g.sinksFrom(peer) {
		if m.vm == c.Spec.VM {
			m.queryOnce(ctx)
		}
	}
}

// orphan tells operators that the source knows nothing of a move whose
// process waits here.
func (m *sinkMove) orphan() {
	m.job.update(func(v *Job) {
		v.State = JobInDoubt
		v.Phase = "waiting; site " + m.entry.Peer + " has no record of this move"
		v.Safe = fmt.Sprintf("look whether the VM runs at %s. If it does: longhaul job recover %s --run source. If it never will: longhaul job recover %s --run destination",
			m.entry.Peer, v.ID, v.ID)
	})
}

// tellOutcome answers a destination that asks about a move of ours. While the
// move goes on here it needs no answer: its orders will come.
func (g *Gateway) tellOutcome(token, site string) (control, bool) {
	e, ok, err := g.journal.Get(token, RoleSource)
	switch {
	case err != nil:
		g.log.Error("answering a query", "peer", site, "err", err)
		return control{}, false
	case !ok || e.Peer != site:
		return control{Type: msgUnknown}, true
	case e.Step == StepAborted:
		return control{Type: msgAbort, Reason: "the move has ended: " + e.Job.Error}, true
	case e.Step == StepDone:
		return control{Type: msgDone, State: JobDone, Report: e.Job.Report}, true
	}
	return control{Type: msgProgress}, true
}
