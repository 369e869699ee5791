package hostnet

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// Net is the network of this machine.
type Net struct {
	// Constant after New.
	cfg Config
	log *slog.Logger
	ns  netns.NsHandle // netns.None() for that of the process
	nl  *netlink.Handle
	raw *rawSocket
	// watchBuffer is the constant of that name, or less in a test.
	watchBuffer int
	open        chan struct{} // closed when tun is there, or never will be
	// attached tells Watch to list all hosts; 1, as one list is enough for many.
	attached chan struct{}

	// asking is held for reading by those who use nl and hold apply not: Watch, and
	// what is asked beside Apply. Close waits for them, and then ended is set.
	asking sync.RWMutex
	ended  bool

	rules rulesDoor
	vlans bridgeVLANs

	snooping snooping
	listed   vlanList

	changes atomic.Uint64 // of segments, so that what is known of ports is asked again

	apply sync.Mutex // makes Apply, Point, Mute and Close follow each other; held across netlink calls, as only the order of these matters; it guards what follows
	muted map[string]bool
	storm storm
	guard guard
	// applied are the VLANs of ports, by index, as an Apply has found them; nil: it has not asked.
	applied map[int][]nl.BridgeVlanInfo

	mu       sync.RWMutex // guards what follows
	tun      *os.File
	tunIndex int
	closed   bool
	segments map[uint32]attachment
}

// attachment is what was made of a segment.
type attachment struct {
	port   int // index of the VXLAN device over the carrier
	bridge int // index of the bridge

	fast *fastPort // in mode secure-fast the port is this; nil in others
	// In mode direct; otherwise 0.
	direct int                           // index of the VXLAN device over the underlay
	sites  map[vxlan.Endpoint]netip.Addr // where it sends what is for each site
	adopts bool                          // something is left of an earlier gateway, see l2ext.Adopted:
	left   left                          // this

	lan lan
}

var _ l2ext.Host = (*Net)(nil)

// New opens netlink. It changes nothing yet and needs no rights; Apply with a
// segment needs CAP_NET_ADMIN.
func New(cfg Config) (*Net, error) {
	cfg.Tun = cmp.Or(cfg.Tun, DefaultTun)
	n := &Net{
		cfg:         cfg,
		log:         cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		ns:          netns.None(),
		watchBuffer: watchBuffer,
		open:        make(chan struct{}),
		attached:    make(chan struct{}, 1),
		segments:    make(map[uint32]attachment),
		muted:       make(map[string]bool),
	}
	n.vlans = kernelVLANs{n}
	if cfg.NetNS != 0 {
		n.ns = netns.NsHandle(cfg.NetNS)
	}
	var err error
	if n.nl, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	if n.raw, err = openRaw(n.ns); err != nil {
		n.nl.Close()
		return nil, err
	}
	return n, nil
}

// Close removes the carrier and with it the overlay ports of all segments.
func (n *Net) Close() error {
	n.apply.Lock()
	defer n.apply.Unlock()
	n.mu.Lock()
	was := n.closed
	n.closed = true
	tun := n.tun
	for _, a := range n.segments {
		if a.fast != nil {
			a.fast.close()
		}
	}
	n.mu.Unlock()
	if was {
		return nil
	}
	err := errors.Join(n.unmuteAll(), n.removeDirect(), n.removeRules(), n.removeGuard())
	n.closeRules()
	n.asking.Lock()
	n.ended = true
	n.nl.Close()
	n.asking.Unlock()
	n.raw.close()
	if tun == nil {
		close(n.open) // nobody will ever open it
		return err
	}
	return errors.Join(err, tun.Close())
}

// ask calls f, which asks the kernel something, unless Close has been called. It is for
// those who do not hold apply.
func (n *Net) ask(f func(*netlink.Handle) error) error {
	n.asking.RLock()
	defer n.asking.RUnlock()
	if n.ended {
		return os.ErrClosed
	}
	return f(n.nl)
}

// linkByIndex is the handle's, for those who do not hold apply.
func (n *Net) linkByIndex(index int) (l netlink.Link, err error) {
	err = n.ask(func(h *netlink.Handle) (err error) {
		l, err = h.LinkByIndex(index)
		return err
	})
	return l, err
}

// within calls f in the namespace.
func (n *Net) within(f func() error) error {
	if !n.ns.IsOpen() {
		return f()
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("finding the current network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot go home stays locked, and ends with its goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		home.Close()
	}()
	if err := netns.Set(n.ns); err != nil {
		return fmt.Errorf("entering the network namespace: %w", err)
	}
	return f()
}

// notFound tells whether an error says that there is no such device or entry.
func notFound(err error) bool {
	var no netlink.LinkNotFoundError
	return errors.As(err, &no) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
