package hostnet

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
)

// Examine tries out, in a network namespace that nobody sees, whether this
// machine and the rights of this process are enough for a segment: TUN, VXLAN,
// bridge, forwarding entries and the limits of broadcasts. Findings are what is
// missing; none means that all is there. ErrRights: that cannot be tried out.
func Examine(ctx context.Context) (findings []error, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		ns, e := netns.New()
		if e != nil {
			err = fmt.Errorf("%w: %w", ErrRights, e)
			return
		}
		defer ns.Close()
		findings = examineIn(ctx, ns)
	}()
	<-ended
	return findings, err
}

func examineIn(ctx context.Context, ns netns.NsHandle) (findings []error) {
	n, err := New(Config{NetNS: int(ns)})
	if err != nil {
		return []error{err}
	}
	defer n.Close()
	wish := l2ext.Wish{
		Segment: l2ext.Segment{Name: "doctor", VNI: 1, Bridge: "br0", MTU: l2ext.DefaultMTU},
		Entries: []l2ext.Entry{{MAC: l2ext.MAC{2, 0, 0, 0, 0, 1}, Site: 16}},
	}
	attached, err := n.Apply(ctx, []l2ext.Wish{wish})
	switch {
	case err != nil:
		findings = append(findings, explain(err))
	case attached[0].Err != nil:
		findings = append(findings, explain(attached[0].Err))
	case n.storm.err != nil:
		findings = append(findings, fmt.Errorf("storms are limited by the gateway only, not in the kernel (nf_tables_bridge): %w", n.storm.err))
	}
	return findings
}

// explain says what to do about an error of the kernel.
func explain(err error) error {
	var no netlink.LinkNotFoundError
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("the gateway needs CAP_NET_ADMIN and /dev/net/tun: %w", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT), errors.As(err, &no):
		return fmt.Errorf("the kernel lacks a module; tun, vxlan, bridge and ipv6 are needed: %w", err)
	}
	return err
}
