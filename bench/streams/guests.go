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

// backPace is slow, at a quarter of a gigabit per second, because the server
// goes on working: a pass takes long enough for much to be rewritten.
var backPace = pace{rounds: 12, bandwidth: 32 << 20}

// first records deb1, lets it work, and records it again.
func (r *recorder) first(ctx context.Context) error {
	m, err := r.server(ctx, Deb1)
	if err != nil {
		return err
	}
	defer m.close()
	if err := r.forget(Back); err != nil { // it belongs to an earlier deb1
		return err
	}
	if err := r.take(ctx, m, Deb1, pace{}, 0); err != nil {
		return err
	}
	if err := m.mon.Cont(ctx); err != nil {
		return err
	}
	if err := m.order(ctx, "work", "working"); err != nil {
		return err
	}
	r.log.Info("working", "guest", Deb1, "for", r.work)
	select {
	case <-time.After(r.work):
	case <-m.vm.Done():
		return fmt.Errorf("the guest has ended: %w; console: %s", m.vm.Err(), m.lastWords())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return r.take(ctx, m, Back, backPace, r.work)
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
	return startDebian(ctx, tree, disk, name)
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
