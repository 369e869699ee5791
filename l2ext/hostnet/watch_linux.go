package hostnet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

const (
	// watchBuffer holds about 100 000 notifications. With the default of
	// 208 KiB the kernel drops them, and the library gives up, when a bridge
	// learns a few hundred hosts at once.
	watchBuffer = 16 << 20

	// watchAgain is how long a subscription that ended stays so: the kernel
	// tells faster than we read, and would at once again.
	watchAgain = 200 * time.Millisecond
)

// Watch reports the hosts on the LAN ports of all segments until ctx ends.
func (n *Net) Watch(ctx context.Context, report func(l2ext.Sighting)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	listening := make(chan struct{}) // closed when what is told from now on is heard, or cannot be
	once := sync.OnceFunc(func() { close(listening) })
	wg.Go(func() {
		n.again(ctx, "LAN ports are listened to again", func() error { return n.snoop(ctx, once, report) })
	})
	wg.Go(func() { n.watchTwins(ctx, report) })
	<-listening
	n.again(ctx, "forwarding database is read again", func() error { return n.watchOnce(ctx, report) })
	return nil
}

// again calls f until ctx ends.
func (n *Net) again(ctx context.Context, what string, f func() error) {
	for {
		err := f()
		if ctx.Err() != nil {
			return
		}
		n.log.Info(what, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchAgain):
		}
	}
}

// errEnded says that the kernel tells nothing any more.
var errEnded = errors.New("notifications ended")

// watchOnce subscribes, then lists what is there, then follows what changes.
func (n *Net) watchOnce(ctx context.Context, report func(l2ext.Sighting)) error {
	// 1024: the library's reader must not wait for us with every notification.
	updates, done := make(chan netlink.NeighUpdate, 1024), make(chan struct{})
	failed := make(chan error, 1)
	opt := netlink.NeighSubscribeOptions{
		ReceiveBufferSize: n.watchBuffer, ReceiveBufferForceSize: true,
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	}
	if n.ns.IsOpen() {
		opt.Namespace = &n.ns
	}
	if err := netlink.NeighSubscribeWithOptions(updates, done, opt); err != nil {
		return fmt.Errorf("subscribing to the forwarding database: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // until the library's reader has seen it
		}
	}()
	if err := n.reportAll(report); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-updates:
			if !ok {
				return errors.Join(errEnded, takeErr(failed))
			}
			if u.Type == unix.RTM_NEWNEIGH {
				n.reportOne(u.Neigh, report)
			}
		case <-n.attached:
			if err := n.reportAll(report); err != nil {
				return err
			}
		}
	}
}

func takeErr(c <-chan error) error {
	select {
	case err := <-c:
		return err
	default:
		return nil
	}
}

// reportAll lists all hosts that the bridges know.
func (n *Net) reportAll(report func(l2ext.Sighting)) error {
	list, err := n.nl.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("listing the forwarding database: %w", err)
	}
	for _, e := range list {
		n.reportOne(e, report)
	}
	return nil
}

// reportOne reports an entry if it is a host behind a LAN port. Permanent
// entries are addresses of the machine's own devices.
func (n *Net) reportOne(e netlink.Neigh, report func(l2ext.Sighting)) {
	if e.Family != unix.AF_BRIDGE || e.MasterIndex == 0 || e.State&netlink.NUD_PERMANENT != 0 || len(e.HardwareAddr) != 6 {
		return
	}
	vni, ok := n.segmentOf(e.MasterIndex)
	if !ok || n.isPort(vni, e.LinkIndex) {
		return
	}
	report(l2ext.Sighting{VNI: vni, MAC: l2ext.MAC(e.HardwareAddr)})
}

func (n *Net) isPort(vni uint32, link int) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	a := n.segments[vni]
	return a.port == link || a.direct == link
}

// twinsEvery is how often the kernel is asked for foreign senders.
const twinsEvery = time.Second

// watchTwins reports, in mode direct, hosts of other sites that send from LAN ports:
// the bridge does not learn them, as it has entries for them that stay.
func (n *Net) watchTwins(ctx context.Context, report func(l2ext.Sighting)) {
	tick := time.NewTicker(twinsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, vni := range n.directSegments() {
			for _, mac := range n.twinsOf(vni) {
				report(l2ext.Sighting{VNI: vni, MAC: mac})
			}
		}
	}
}

func (n *Net) directSegments() (vnis []uint32) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for vni, a := range n.segments {
		if a.direct != 0 {
			vnis = append(vnis, vni)
		}
	}
	return vnis
}
