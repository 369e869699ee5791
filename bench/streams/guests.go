package streams

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
)

// The paces of servers that go on working are slow, a quarter and an eighth of a
// gigabit per second: a pass takes long enough for much to be rewritten. At that of
// busy work calm work comes to an end in 10 rounds.
var (
	busyPace = pace{rounds: 12, bandwidth: 32 << 20}
	calmPace = pace{rounds: 12, bandwidth: 16 << 20}
)

// How hard deb1 works, in per cent of what debian/agent.pl can do. Of the guest in
// facts/reduction.md zstd --long leaves 5.8 MB after its ten minutes, of deb1-back
// 21.9 MB; and of the facts' guest half as many pages are sent twice. So a quarter
// is as much work as that one did.
const (
	busyWork = 100
	calmWork = 25
)

// first records deb1. What it is a recording of can be taken up from it again,
// since the disk is kept as it is then.
func (r *recorder) first(ctx context.Context) error {
	m, err := r.server(ctx, Deb1)
	if err != nil {
		return err
	}
	defer m.close()
	for _, name := range []string{Disk, Calm, Busy} { // they belong to an earlier deb1
		if err := r.forget(name); err != nil {
			return err
		}
	}
	if err := r.take(ctx, m, Deb1, pace{}, 0); err != nil {
		return err
	}
	return copyDisk(ctx, r.image(Deb1), r.pausedDisk()) // the guest is paused
}

// calm and busy record deb1 again after its work.
func (r *recorder) calm(ctx context.Context) error { return r.again(ctx, Calm, calmWork, calmPace) }
func (r *recorder) busy(ctx context.Context) error { return r.again(ctx, Busy, busyWork, busyPace) }

// again takes deb1 up where it was recorded, lets it work, and records it as name.
func (r *recorder) again(ctx context.Context, name string, percent int, p pace) error {
	m, err := r.takeUp(ctx, name)
	if err != nil {
		return err
	}
	defer m.close()
	if err := m.mon.Cont(ctx); err != nil {
		return err
	}
	if err := m.order(ctx, fmt.Sprintf("work %d", percent), "working"); err != nil {
		return err
	}
	r.log.Info("working", "guest", Deb1, "for", r.work, "percent", percent)
	select {
	case <-time.After(r.work):
	case <-m.vm.Done():
		return fmt.Errorf("the guest has ended: %w; console: %s", m.vm.Err(), m.lastWords())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return r.take(ctx, m, name, p, r.work)
}

// takeUp starts a QEMU that loads the recording of deb1, with a copy of its disk.
func (r *recorder) takeUp(ctx context.Context, name string) (*machine, error) {
	tree, err := r.rootfs(ctx)
	if err != nil {
		return nil, err
	}
	if err := copyDisk(ctx, r.pausedDisk(), r.image(name)); err != nil {
		return nil, err
	}
	r.log.Info("taking up", "guest", Deb1)
	m, err := startDebian(ctx, tree, r.image(name), Deb1, incoming...)
	if err != nil {
		return nil, err
	}
	if err := m.load(ctx, r.path(Deb1)); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// second records deb2.
func (r *recorder) second(ctx context.Context) error {
	m, err := r.server(ctx, Deb2)
	if err != nil {
		return err
	}
	defer m.close()
	return r.take(ctx, m, Deb2, pace{}, 0)
}

// server boots a Debian server from a new disk.
func (r *recorder) server(ctx context.Context, name string) (*machine, error) {
	tree, err := r.rootfs(ctx)
	if err != nil {
		return nil, err
	}
	disk, err := r.disk(ctx, tree, name)
	if err != nil {
		return nil, err
	}
	r.log.Info("booting", "guest", name)
	m, err := startDebian(ctx, tree, disk, name)
	if err != nil {
		return nil, err
	}
	if err := m.expect(ctx, "ready", bootLimit); err != nil {
		err = fmt.Errorf("%w; console: %s", err, m.lastWords())
		m.close()
		return nil, err
	}
	return m, nil
}

// The small guest of sparse rewrites changes a few words of a page 2400 times a
// second, of one page in eight. At this bandwidth what is dirty halves in each
// round, so that there are many before a round is small enough to be the last.
var (
	sparseDirty = control.Dirty{Rate: 2400, Hot: 6000, Sparse: 100}
	sparsePace  = pace{rounds: 8, bandwidth: 20 << 20}
)

// sparse records the small guest.
func (r *recorder) sparse(ctx context.Context) error {
	img, err := guest.Build(ctx)
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	r.log.Info("booting", "guest", Sparse)
	m, err := start(ctx, Sparse, 256<<10+8, []string{
		"-kernel", img.Kernel, "-initrd", img.Initrd, "-append", "console=ttyS0 quiet panic=-1 lh.seed=11 lh.ip=10.0.2.15/24",
		"-netdev", fmt.Sprintf("user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:%d-:%d", port, control.Port),
		"-device", "virtio-net-pci,netdev=net0,romfile=,mac=52:54:00:00:00:11",
	})
	if err != nil {
		return err
	}
	defer m.close()
	if err := m.vm.WaitReady(ctx); err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	client := guest.NewClient(conn)
	defer client.Close()
	if err := client.SetDirty(ctx, sparseDirty); err != nil {
		return err
	}
	return r.take(ctx, m, Sparse, sparsePace, 0)
}

// freePort is a TCP port that nobody listens on. QEMU takes it at once; should
// another be faster, QEMU ends with an error.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
