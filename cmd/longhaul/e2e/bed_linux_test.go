package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/nstest"
)

const (
	vmName   = "vm1"
	lanMTU   = 1500
	diskSize = 8 << 20 // bytes

	// settleTime bounds how long the sites take to agree by themselves after
	// a fault: the tunnel has to notice that its peer is gone, and a
	// destination asks its source every few seconds.
	settleTime = 3 * time.Minute
)

// bed is two sites with their gateways, and a guest.
type bed struct {
	lab   *lab.Lab
	third *lab.Site // nil without one
	pair  *pair.Pair
	ask   *guest.Client // nil without a guest
	vm    *guest.VM     // as it was started; moves by hand replace it
	mac   string
	at    *lab.Site // where the guest is
}

// bedOptions of a bed. The zero value is the demo's link and a guest of 96 MiB.
type bedOptions struct {
	link    lab.Link
	rate    int64 // cap of the link, bits per second
	carrier string
	segment string // more of the segment's config
	extra   func(*lab.Site) string
	more    func(other string) string // segments, see pair.Options
	third   bool                      // there is a third site, with a gateway, where the guest never is
	mtu     int                       // of the guest; 0 means lanMTU
	fill    int                       // per cent of the guest's memory; 0 means 60
	hard    bool                      // its content cannot be reduced
	dirty   control.Dirty
	noGuest bool
	noPair  bool
}

// newLab makes a lab that ends with the test.
func newLab(t testing.TB, link lab.Link) *lab.Lab {
	t.Helper()
	if testing.Short() {
		nstest.Skip(t, "boots a guest")
	}
	if err := lab.Check(); err != nil {
		nstest.Skip(t, err.Error())
	}
	l, err := lab.New(t.Context(), lab.Options{Link: link, Seed: 1, Emulator: []string{"/proc/self/exe"}, Congestion: "cubic"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	return l
}

// newBed makes a bed that ends with the test.
func newBed(t testing.TB, o bedOptions) *bed {
	t.Helper()
	b := &bed{lab: newLab(t, o.link)}
	b.at = b.lab.A
	t.Cleanup(func() {
		if t.Failed() {
			b.showLogs(t)
		}
	})
	if o.third {
		var err error
		if b.third, err = b.lab.AddSite("third"); err != nil {
			t.Fatal(err)
		}
	}
	if !o.noPair {
		b.startPair(t, o)
	}
	if !o.noGuest {
		b.boot(t, o)
	}
	return b
}

func (b *bed) startPair(t testing.TB, o bedOptions) {
	t.Helper()
	p, err := pair.Start(t.Context(), b.lab, pair.Options{
		Binary: os.Getenv(binaryMark), Rate: o.rate, Carrier: o.carrier, Segment: o.segment, Extra: o.extra, More: o.more, Third: b.third,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.pair = p
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pair.StartTime)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Errorf("stopping the gateways: %v", err)
		}
	})
}

// boot starts the guest at site a and lets it work.
func (b *bed) boot(t testing.TB, o bedOptions) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	img, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := b.lab.NewDisk(vmName, diskSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.lab.B.Tap(vmName, lanMTU); err != nil {
		t.Fatal(err)
	}
	fill := o.fill
	if fill == 0 {
		fill = 60
	}
	vm, err := b.lab.A.StartGuest(ctx, guest.Options{
		Name: vmName, Image: img, Memory: 96 << 20, Disk: disk, Seed: 7, Fill: fill, Hard: o.hard, MTU: cmp.Or(o.mtu, lanMTU), Accel: guest.Accel(ctx, img),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.vm.Kill() })
	b.vm, b.mac = vm, vm.HardwareAddr()
	if err := vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if b.ask, err = b.lab.Control(ctx, lab.GuestIP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.ask.Close() })
	if o.dirty == (control.Dirty{}) {
		o.dirty = control.Dirty{Rate: 100, Hot: 2000, Sparse: 75, Disk: 20}
	}
	if err := b.ask.SetDirty(ctx, o.dirty); err != nil {
		t.Fatal(err)
	}
}

// showLogs prints the end of the gateways' logs.
func (b *bed) showLogs(t testing.TB) {
	for _, s := range b.sites() {
		log, err := os.ReadFile(filepath.Join(s.Dir, "longhauld.log"))
		t.Logf("gateway of site %s (%v):\n%s", s.Name, err, log[max(0, len(log)-20000):])
	}
}

func (b *bed) sites() []*lab.Site { return []*lab.Site{b.lab.A, b.lab.B} }

// other is the site where the guest is not.
func (b *bed) other() *lab.Site {
	if b.at == b.lab.A {
		return b.lab.B
	}
	return b.lab.A
}

// move moves the guest to the other site, and fails the test if that fails.
func (b *bed) move(t testing.TB, req gateway.MigrateRequest) gateway.Job {
	t.Helper()
	req.VM, req.To = vmName, b.other().Name
	j, err := b.pair.Migrate(t.Context(), b.at, req, nil)
	if err != nil {
		t.Fatalf("moving from %s: %v", b.at.Name, err)
	}
	if j.State != gateway.JobDone {
		t.Fatalf("moving from %s: %s: %s", b.at.Name, j.State, j.Error)
	}
	b.at = b.other()
	b.executesAt(t, b.at)
	return j
}

// verify has the guest check everything.
func (b *bed) verify(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := b.ask.Verify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.ask.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !v.OK() || v.Journal != 0 {
		t.Errorf("the guest is damaged: %+v", v)
	}
	if st.Foreign != 0 {
		t.Errorf("another copy of the guest has written its disk %d times", st.Foreign)
	}
}

// beats waits until the guest's heart beats.
func (b *bed) beats(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	first, err := b.ask.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, ctx, func() error {
		st, err := b.ask.Stats(ctx)
		if err == nil && st.Heartbeat <= first.Heartbeat {
			err = fmt.Errorf("the heart stands still at beat %d", st.Heartbeat)
		}
		return err
	})
}

// executesAt checks that there is one copy of the guest, at s. The process of
// a source that was just released may take a moment to end.
func (b *bed) executesAt(t testing.TB, s *lab.Site) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	poll(t, ctx, func() error {
		if at, n := b.copies(t); n != 1 || at != s {
			return fmt.Errorf("there are %d copies of the guest; want 1, at site %s", n, s.Name)
		}
		return nil
	})
}

// copies counts the guest's processes, and tells where the last of them is.
func (b *bed) copies(t testing.TB) (at *lab.Site, n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), "qemu-system") || !strings.Contains(string(line), "\x00-name\x00"+vmName+"\x00") ||
			!strings.Contains(string(line), b.lab.Dir) {
			continue
		}
		for _, s := range b.sites() {
			if sameFile(filepath.Join(filepath.Dir(path), "ns/net"), filepath.Join("/run/netns", s.Namespace)) {
				at = s
				n++
			}
		}
	}
	return at, n
}

func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// pollEvery is how often poll looks.
const pollEvery = 20 * time.Millisecond

// poll looks until there is nothing wrong; when ctx ends it fails the test.
func poll(t testing.TB, ctx context.Context, look func() error) {
	t.Helper()
	if err := await(ctx, look); err != nil {
		t.Fatal(err)
	}
}

// await is poll that returns what is still wrong when ctx ends.
func await(ctx context.Context, look func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error // that the end of ctx has not caused
	for {
		err := look()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(last, context.Cause(ctx))
		}
	}
}

// probes are what a third host does with the guest all the time.
type probes struct {
	session *lab.TCPSession
	pinger  *lab.Pinger
}

// probe holds a TCP session with the guest, and pings it, until the test ends.
func (b *bed) probe(t *testing.T) probes {
	t.Helper()
	session, err := b.lab.Client.Session(t.Context(), lab.GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	pinger, err := b.lab.Client.Pinger(lab.GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2) // one for each probe
	go func() { ended <- session.Run(ctx) }()
	go func() { ended <- pinger.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Errorf("probes: %v", err)
		}
	})
	return probes{session, pinger}
}

// alive checks that the session lives, and carries something now.
func (p probes) alive(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	first := p.session.Report()
	poll(t, ctx, func() error {
		now := p.session.Report()
		if !now.Alive {
			t.Fatalf("the session is broken: %s", now.Why)
		}
		if now.Echoes <= first.Echoes {
			return errors.New("the session stands still")
		}
		return nil
	})
}
