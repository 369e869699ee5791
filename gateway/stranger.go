package gateway

import (
	"context"
	"errors"
	"fmt"
)

// A stranger is a process that somebody has given a VM's name at its host while the
// gateway was away, or the move in doubt. It may be the VM or another one, but it is not
// the one that is journaled, and while it can run nothing else is made to. That none is
// there has to be said: a host that cannot be asked, or that cannot tell, decides nothing.

// errStranger says that a stranger was seen.
var errStranger = errors.New("it is left alone")

// strangerTime is how long a host may take to say what has a VM's name. It asks all its
// VMs, some at a time, and waits for one that hangs as long as for any answer.
const strangerTime = 4 * answerTime

// stranger fails with errStranger when there is one that can run, and with another error
// when that is not known.
func (m *sourceMove) stranger(ctx context.Context) error {
	h := m.g.hostNamed(m.entry.Host)
	if !m.takenUp && !m.doubted || m.entry.Process == "" || h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, strangerTime)
	defer cancel()
	src, err := h.Source(ctx, m.entry.Spec.VM)
	if errors.Is(err, ErrNoVM) {
		return nil
	}
	if err != nil {
		return m.untold(err)
	}
	defer src.Close()
	if src.Process() == m.entry.Process {
		return nil
	}
	state, err := src.State(ctx)
	switch {
	case err != nil:
		return m.untold(err)
	case state == Moved || state == Gone || state == Incoming:
		return nil
	case src.Process() == "":
		return m.untold(errors.New("one has it, and the host does not tell which"))
	}
	return fmt.Errorf("another process than that of the move has the name %s at host %s and is %s; %w", m.entry.Spec.VM, h.Name(), state, errStranger)
}

func (m *sourceMove) untold(why error) error {
	return fmt.Errorf("it is not known whether another process than that of the move has the name %s at host %s: %w", m.entry.Spec.VM, m.entry.Host, why)
}

// strange tells operators of what stranger has said, which keeps the move from going on.
func (m *sourceMove) strange(why error) {
	first := fmt.Sprintf("see to it that host %s can be asked about its VMs", m.entry.Host)
	if errors.Is(why, errStranger) || errors.Is(why, ErrBusy) {
		first = "end that process if it is not needed"
	}
	m.job.update(func(v *Job) {
		v.State, v.Phase = JobInDoubt, why.Error()
		v.Safe = fmt.Sprintf("%s: the move then goes on by itself. "+
			"If the VM runs in that process now, and %s does not run it: longhaul job recover %s --run source. "+
			"If the VM runs at %s: longhaul job recover %s --run destination", first, m.entry.Peer, v.ID, m.entry.Peer, v.ID)
	})
}
