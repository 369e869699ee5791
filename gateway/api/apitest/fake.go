// Package apitest has a gateway for tests: it keeps state, moves nothing and
// needs no network. A move advances by one step each time that a watcher has
// taken the last one, or when a test says so; no time passes by itself.
package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// Epoch is when everything in a Fake happens.
func Epoch() time.Time { return time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC) }

// A Fake is a gateway of site a with a peer b. It is an api.Backend.
type Fake struct {
	mu       sync.Mutex // guards what follows
	vms      []gateway.VMInfo
	jobs     []*job
	forwards []gateway.Forward
	segments []gateway.Segment
	revoked  []string
	test     *gateway.LinkTest // of the link to b
	tasks    []gateway.StoreTask
	reloads  int
	fail     error
	happened map[string]int // by kind; see Next
	news     chan struct{}  // closed and replaced when something happens
}

// New makes a Fake with VMs web1 and db1 that move; stuck, which never gets
// anywhere; dies, whose move fails; doubt, whose move ends in doubt; and late,
// which stays in its switchover until a test calls Step.
func New() *Fake {
	f := &Fake{happened: map[string]int{}, news: make(chan struct{})}
	for i, name := range []string{"web1", "db1", "stuck", "dies", "doubt", "late"} {
		f.vms = append(f.vms, gateway.VMInfo{
			Name: name, Host: "kvm1", State: gateway.Running, Memory: 1 << 30, Version: "QEMU 7.2.19",
			NICs: []gateway.NIC{{MAC: fmt.Sprintf("52:54:00:00:00:%02x", i+1), Tap: "tap-" + name}},
		})
	}
	f.vms = append(f.vms, gateway.VMInfo{
		Name: "mute", Host: "kvm2", State: gateway.Unknown, Problem: "QMP does not answer",
	})
	return f
}

// Fail makes every call end with err from now on; nil makes them work again.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// happen is called with the lock held.
func (f *Fake) happen(kind string) {
	f.happened[kind]++
	close(f.news)
	f.news = make(chan struct{})
}

// Next waits for the next "watch" (somebody watches a job) or "refusal" (a
// job cannot be aborted any more) that no earlier call has waited for.
func (f *Fake) Next(ctx context.Context, kind string) error {
	for {
		f.mu.Lock()
		n, news := f.happened[kind], f.news
		if n > 0 {
			f.happened[kind]--
		}
		f.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("waiting for a %s: %w", kind, ctx.Err())
		}
	}
}

// Reloads tells how often Reload was called.
func (f *Fake) Reloads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reloads
}

// String prints the state, for tests that compare it.
func (f *Fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, j := range f.jobs {
		fmt.Fprintf(&b, "job %s %s %s->%s %s\n", j.now.ID, j.now.VM, j.now.From, j.now.To, j.now.State)
	}
	for _, w := range f.forwards {
		fmt.Fprintf(&b, "forward %s %s -> %s %s\n", w.Name, w.Listen, w.To, w.Target)
	}
	for _, s := range f.segments {
		fmt.Fprintf(&b, "segment %s vni %d %s\n", s.Name, s.VNI, s.Bridge)
	}
	for _, t := range f.tasks {
		fmt.Fprintf(&b, "task %s %s %s %s\n", t.ID, t.Kind, strings.Join(t.Sources, ","), t.State)
	}
	for _, s := range f.revoked {
		fmt.Fprintf(&b, "revoked %s\n", s)
	}
	return b.String()
}

// Status of site a with its one peer.
func (f *Fake) Status(ctx context.Context) (gateway.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	running := 0
	for _, j := range f.jobs {
		if !j.now.State.Ended() {
			running++
		}
	}
	return gateway.Status{
		Site: "a", Gateway: "gw1", Version: "test", Since: Epoch(), Listen: "[::]:7447",
		CertEnd: Epoch().AddDate(0, 3, 0), Jobs: running,
		Peers: []gateway.PeerStatus{{
			Site: "b", Address: "192.0.2.2:7447", Alive: true, Since: Epoch(), Member: "alive", Version: "test",
			RTT: 60.2, Conns: 5, Carrier: "quic", Rate: 200e6, Goodput: 171e6, Controller: "newreno",
			Sent: 3 << 30, Received: 5 << 20, Copied: 1 << 20,
			Classes: []gateway.Class{{Name: "urgent", Sent: 4 << 20}, {Name: "memory", Weight: 64, Sent: 3 << 30}},
		}},
		Hosts: []gateway.HostStatus{{Name: "kvm1", VMs: 6}, {Name: "kvm2", VMs: 1, Problem: "1 VM does not answer"}},
		Store: gateway.StoreStatus{Pages: 65536, Bytes: 256 << 20, Budget: 16 << 30, Memory: 200 << 20, Disk: 256 << 20},
	}, f.fail
}

// VMs lists what New made.
func (f *Fake) VMs(ctx context.Context) ([]gateway.VMInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.vms), f.fail
}

// CreateToken makes a token that tells what it was asked for.
func (f *Fake) CreateToken(ctx context.Context, site string, ttl time.Duration) (string, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return "", time.Time{}, f.fail
	}
	return fmt.Sprintf("lhtok-%s-%d", site, int64(ttl.Seconds())), Epoch().Add(ttl), nil
}

// Revoke remembers the site, be it known or not.
func (f *Fake) Revoke(ctx context.Context, site string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if site == "a" {
		return fmt.Errorf("revoking %q: it founded the fleet: %w", site, gateway.ErrInvalid)
	}
	f.revoked = append(f.revoked, site)
	return nil
}

// Reload counts; from the second time on the address to listen at differs.
func (f *Fake) Reload(ctx context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads++
	if f.reloads > 1 && f.fail == nil {
		return []string{"listen"}, nil
	}
	return nil, f.fail
}
