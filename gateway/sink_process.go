package gateway

import (
	"context"
	"errors"
	"fmt"
)

// hungUp notes that sink can no longer be asked; find asks another.
func (m *sinkMove) hungUp(sink Sink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = m.cut || m.sink == sink
}

// find has m.sink hold the process of the move, if there is one. The caller
// holds mu.
func (m *sinkMove) find(ctx context.Context) error {
	if m.sink != nil && !m.cut {
		return nil
	}
	h := m.g.hostNamed(m.entry.Host)
	if h == nil {
		return fmt.Errorf("host %q is not in the config: %w", m.entry.Host, ErrNotFound)
	}
	sink, err := h.Attach(ctx, m.entry.Spec)
	if err != nil {
		return fmt.Errorf("host %s: %w", h.Name(), err)
	}
	if m.sink != nil {
		m.sink.Close()
	}
	m.sink, m.cut = sink, false
	m.g.wg.Go(func() { m.follow(sink) })
	return nil
}

// state asks the hypervisor for the state of the process. Gone: it is not there.
func (m *sinkMove) state(ctx context.Context) (RunState, error) {
	err := m.find(ctx)
	if errors.Is(err, ErrNoVM) {
		return Gone, nil
	}
	if err != nil {
		return Unknown, err
	}
	state, err := m.sink.State(ctx)
	if err != nil {
		return Unknown, fmt.Errorf("asking the hypervisor: %w", err)
	}
	return state, nil
}

// loadedOrWhy tells whether the process holds the whole VM. After a restart of
// the gateway the hypervisor alone knows.
func (m *sinkMove) loadedOrWhy(ctx context.Context) error {
	state, err := m.state(ctx)
	if err != nil {
		return err
	}
	if state != Paused {
		return fmt.Errorf("the hypervisor process is %s, not loaded and paused", state)
	}
	return nil
}
