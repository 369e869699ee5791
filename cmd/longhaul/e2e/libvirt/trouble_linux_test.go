package libvirt_test

import (
	"context"
	"testing"
	"time"
)

// slow leaves time to do something to a move: its memory takes about 6 s.
var slow = move{name: "slow", options: []string{"--bandwidth", "16"}, way: byTCP, forwards: overTCP, reduction: 1}

// outage is how long the WAN is away. libvirt's keepalive gives up after about
// 30 s of silence.
const outage = 8 * time.Second

// troubles happen to a move by virsh while its memory crosses.
func (w *world) troubles(t *testing.T, d *domain) {
	from, to := w.hosts[0], w.hosts[1]
	if !t.Run("abort", func(t *testing.T) { w.abort(t, d, from, to) }) {
		return
	}
	t.Run("outage", func(t *testing.T) { w.outage(t, d, from, to) })
}

// abort ends a move: the VM stays, and nothing of the move does.
func (w *world) abort(t *testing.T, d *domain, from, to *host) {
	ctx, cancel := context.WithTimeout(t.Context(), moveTime)
	defer cancel()
	ended := w.underWay(t, ctx, d, from, to)
	if _, err := from.virsh(ctx, "domjobabort", d.name); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Fatal("virsh migrate succeeded although it was aborted")
	}
	w.runsAt(t, ctx, d, from, to)
	d.verify(t, ctx)
	for _, name := range slow.forwards {
		w.await(t, ctx, from, "no connection of "+name, func(f forwardsOf) bool { return f[name].Conns == 0 })
	}
}

// outage cuts the WAN in the middle of a move, which goes on afterwards.
func (w *world) outage(t *testing.T, d *domain, from, to *host) {
	ctx, cancel := context.WithTimeout(t.Context(), moveTime)
	defer cancel()
	to.makeDisk(t, d)
	before := counts(t, ctx, w.pair, from)
	ended := w.underWay(t, ctx, d, from, to)
	if err := w.lab.Cut(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("virsh ended without a WAN: %v", err)
	case <-time.After(outage):
	}
	if err := w.lab.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	w.runsAt(t, ctx, d, to, from)
	d.verify(t, ctx)
	slow.judge(t, before, counts(t, ctx, w.pair, from))
}

// underWay begins a move and returns when its memory crosses. The channel gets
// virsh's end, and holds it.
func (w *world) underWay(t *testing.T, ctx context.Context, d *domain, from, to *host) <-chan error {
	t.Helper()
	before := counts(t, ctx, w.pair, from)[ramTCP]
	ended := make(chan error, 1)
	go func() {
		_, err := from.virsh(ctx, slow.command(d, to)...)
		ended <- err
	}()
	w.await(t, ctx, from, "memory in "+ramTCP, func(f forwardsOf) bool { return f[ramTCP].Logical-before.Logical > memory<<20/8 })
	return ended
}

// await asks the gateway of a site until its forwards are as wanted.
func (w *world) await(t *testing.T, ctx context.Context, h *host, what string, done func(forwardsOf) bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !done(counts(t, ctx, w.pair, h)) {
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s at site %s: %v", what, h.Name, context.Cause(ctx))
		}
	}
}
