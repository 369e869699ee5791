package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
)

// TestForwardRecover kills the gateway of the destination in the middle of a
// postcopy by hand. Both QEMUs pause then, and go on over a new connection through
// the same forward, which begins without a header (hypervisor-wire.md, section
// 3.4).
func TestForwardRecover(t *testing.T) {
	t.Parallel() // it waits most of its time
	b := newForwardBed(t, bedOptions{link: forwardLink(), fill: 30, dirty: control.Dirty{Rate: 100, Hot: 1000, Disk: 5}})
	ctx, cancel := context.WithTimeout(t.Context(), handTime)
	defer cancel()
	// So slow that nearly all memory is left when the gateway dies: a source that
	// has sent all of it and waits for the answer never pauses in QEMU 7.2.
	m := handMove{capabilities: []string{"postcopy-ram"}, parameters: map[string]any{"max-bandwidth": 4 << 20, "max-postcopy-bandwidth": 1 << 20}}
	m.out, m.in = b.ends("mig-tcp")
	from, to := b.at, b.other()
	h := b.begin(t, ctx, m)
	h.startPostcopy(t, ctx, 1)
	comesTo(t, ctx, h.src, "postcopy-active")
	comesTo(t, ctx, h.to, "postcopy-active") // before, a break ends it
	b.pair.Process(to).Kill()                // the one of the source waits for it, with its leg open, and hears then that it has forgotten
	if err := b.pair.Run(ctx, to); err != nil {
		t.Fatal(err)
	}
	if err := b.pair.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	comesTo(t, ctx, h.src, "postcopy-paused")
	before := b.forward(t, from, "mig-tcp")
	do(t, ctx, h.src, "migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": 0})
	poll(t, ctx, func() error { return h.to.Urgent(ctx, "migrate-recover", map[string]string{"uri": m.in}) }) // once it has paused, too
	do(t, ctx, h.src, "migrate", map[string]any{"uri": m.out, "resume": true})
	comesTo(t, ctx, h.src, "postcopy-active", "completed")
	end := h.completes(t, ctx)
	b.executesAt(t, to)
	b.beats(t)
	b.verify(t)
	b.idle(t, from, "mig-tcp")
	f := b.forward(t, from, "mig-tcp")
	t.Logf("%d rounds; after the break %d connections, %d bytes as %d", end.RAM.Rounds, f.Total-before.Total, f.Logical-before.Logical, f.Wire-before.Wire)
	if f.Total != before.Total+1 || f.Logical == before.Logical {
		t.Errorf("the forward counts %+v, before %+v", f, before)
	}
}

// comesTo waits until a migration is in one of some states.
func comesTo(t *testing.T, ctx context.Context, q *lab.Monitor, states ...string) {
	t.Helper()
	poll(t, ctx, func() error {
		m, err := q.Migration(ctx)
		if err == nil && !slices.Contains(states, m.Status) {
			err = fmt.Errorf("the migration is %s: %s", m.Status, m.Error)
		}
		return err
	})
}
