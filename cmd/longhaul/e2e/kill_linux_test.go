package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// phase is a moment of a move, by what the jobs at both sites say. dst is zero
// while the destination does not know the move.
type phase struct {
	name string
	is   func(src, dst gateway.Job) bool
}

// phases of a move, in their order. From "commit" on the destination may run
// the VM, so that it ends there unless the order was lost. A phase lasts one
// round trip or two, and who watches a job sees where it is and not where it was:
// on a busy machine a phase may be over before it is heard of, and the gateway is
// then killed in a later one, which "taken up" in the log names.
func phases() []phase {
	return []phase{
		{"preparing", func(src, _ gateway.Job) bool { return reached(src, gateway.JobPreparing) }},
		{"prepared", func(_, dst gateway.Job) bool { return reached(dst, gateway.JobMoving) }},
		{"moving", func(src, _ gateway.Job) bool {
			return reached(src, gateway.JobMoving) && src.Progress.LogicalBytes > 4<<20
		}},
		{"switching", func(src, _ gateway.Job) bool { return reached(src, gateway.JobSwitching) }},
		{"loaded", func(_, dst gateway.Job) bool { return reached(dst, gateway.JobSwitching) }},
		{"commit", func(src, _ gateway.Job) bool { return reached(src, gateway.JobCommit) }},
		{"running", func(_, dst gateway.Job) bool { return reached(dst, gateway.JobCommit) }},
		{"done", func(src, _ gateway.Job) bool { return reached(src, gateway.JobDone) }},
	}
}

// reached tells whether a move that goes well has come to a state, or beyond it.
func reached(j gateway.Job, s gateway.JobState) bool {
	order := []gateway.JobState{gateway.JobPreparing, gateway.JobMoving, gateway.JobSwitching, gateway.JobCommit, gateway.JobDone}
	return slices.Index(order, j.State) >= slices.Index(order, s)
}

// TestKillGateways: a gateway that is killed at any moment and run again finds
// the VM at exactly one site, and the next move works.
func TestKillGateways(t *testing.T) {
	for _, victims := range []string{"source", "destination", "both"} {
		t.Run(victims, func(t *testing.T) {
			t.Parallel() // it waits most of its time
			b := newBed(t, bedOptions{
				link: lab.Link{Rate: 200e6, RTT: 60 * time.Millisecond}, fill: 20,
				// So little that every move sends all of memory.
				extra: func(*lab.Site) string { return "store:\n  memory: 8MiB\n  disk: 8MiB\n" },
			})
			for _, p := range phases() {
				t.Run(p.name, func(t *testing.T) { b.killAndMoveAgain(t, p, victims) })
				if t.Failed() {
					return // the bed is not what the next case expects
				}
			}
		})
	}
}

// killAndMoveAgain is one case of TestKillGateways.
func (b *bed) killAndMoveAgain(t *testing.T, p phase, victims string) {
	began := time.Now()
	b.killAt(t, p, victims)
	again := time.Now()
	b.move(t, gateway.MigrateRequest{})
	moved := time.Now()
	b.verify(t)
	t.Logf("the fault took %v, the next move %v, the check %v", again.Sub(began).Round(time.Millisecond),
		moved.Sub(again).Round(time.Millisecond), time.Since(moved).Round(time.Millisecond))
}

// killAt begins a move, kills gateways when it comes to p, runs them again,
// and waits for what they make of it.
func (b *bed) killAt(t *testing.T, p phase, victims string) {
	t.Helper()
	from, to := b.at, b.other()
	sites := map[string][]*lab.Site{"source": {from}, "destination": {to}, "both": {from, to}}[victims]
	seen := b.logged(t)
	id := b.until(t, p)
	b.killGateways(t, sites)
	b.settled(t, id)
	at, _ := b.copies(t)
	b.agreed(t, id, from, at)
	b.at = at
	b.beats(t)
	t.Logf("%s: taken up at %v, the VM runs at its %s", id, b.takenUp(t, seen), map[bool]string{true: "source", false: "destination"}[at == from])
}

// killGateways kills those of some sites, and runs them again.
func (b *bed) killGateways(t *testing.T, sites []*lab.Site) {
	t.Helper()
	for _, s := range sites {
		b.pair.Process(s).Kill()
	}
	for _, s := range sites {
		if err := b.pair.Run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.pair.WaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// until begins a move and returns when it has come to p.
func (b *bed) until(t *testing.T, p phase) (id string) {
	t.Helper()
	return b.moveUntil(t, p, gateway.MigrateRequest{})
}

func (b *bed) moveUntil(t *testing.T, p phase, req gateway.MigrateRequest) (id string) {
	t.Helper()
	var watches sync.WaitGroup
	defer watches.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	from, to := b.at, b.other()
	req.VM, req.To = vmName, to.Name
	j, err := b.pair.API(from).Migrate(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	id = j.ID
	type news struct {
		at  *lab.Site
		job gateway.Job
	}
	heard := make(chan news)
	watch := func(s *lab.Site) {
		each := func(ev gateway.JobEvent) error {
			select {
			case heard <- news{s, ev.Job}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		await(ctx, func() error { return b.pair.API(s).WatchJob(ctx, id, each) }) // the destination knows it a little later
	}
	watches.Go(func() { watch(from) })
	watches.Go(func() { watch(to) })
	var dst gateway.Job
	for !p.is(j, dst) {
		if j.State.Ended() && j.State != gateway.JobDone { // of one that is done the destination has still to be heard
			t.Fatalf("the move ended before it came to %s: %s %s", p.name, j.State, j.Error)
		}
		select {
		case n := <-heard:
			if n.at == from {
				j = n.job
			} else {
				dst = n.job
			}
		case <-ctx.Done():
			t.Fatalf("the move does not come to %s: %+v", p.name, j)
		}
	}
	return id
}

// settled waits until no job is open at either site, and one copy of the VM is
// left.
func (b *bed) settled(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	poll(t, ctx, func() error {
		for _, s := range b.sites() {
			jobs, err := b.pair.API(s).Jobs(ctx)
			if err != nil {
				return err
			}
			for _, j := range jobs {
				if !j.State.Ended() {
					return fmt.Errorf("job %s (killed: %s) at site %s is %s: %s %s %s", j.ID, id, s.Name, j.State, j.Phase, j.Error, j.Safe)
				}
			}
		}
		if _, n := b.copies(t); n != 1 {
			return fmt.Errorf("%d copies of the VM", n)
		}
		return nil
	})
}

// agreed checks that the jobs of both sites say where the VM is.
func (b *bed) agreed(t *testing.T, id string, from, at *lab.Site) {
	t.Helper()
	for _, s := range b.sites() {
		j, err := b.pair.API(s).Job(t.Context(), id)
		if errors.Is(err, gateway.ErrNotFound) && s != from && at == from {
			continue // it was never told
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := at != from; (j.State == gateway.JobDone) != want {
			t.Errorf("the VM is at site %s; the job at site %s is %s: %s", at.Name, s.Name, j.State, j.Error)
		}
		vms, err := b.pair.API(s).VMs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		runs := slices.ContainsFunc(vms, func(v gateway.VMInfo) bool { return v.Name == vmName && v.State == gateway.Running })
		if runs != (s == at) {
			t.Errorf("the VM is at site %s; site %s lists %+v", at.Name, s.Name, vms)
		}
	}
}

// logged is how long the logs of the gateways are.
func (b *bed) logged(t *testing.T) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, s := range b.sites() {
		log, err := os.ReadFile(filepath.Join(s.Dir, "longhauld.log"))
		if err != nil {
			t.Fatal(err)
		}
		n[s.Name] = len(log)
	}
	return n
}

// takenUp tells from which step of its journal each gateway has taken the move
// up, by the logs from seen on.
func (b *bed) takenUp(t *testing.T, seen map[string]int) []string {
	t.Helper()
	var steps []string
	for _, s := range b.sites() {
		log, err := os.ReadFile(filepath.Join(s.Dir, "longhauld.log"))
		if err != nil {
			t.Fatal(err)
		}
		line := regexp.MustCompile(`taking up a move.* stage=(\w+)`)
		for _, m := range line.FindAllStringSubmatch(strings.TrimSpace(string(log[seen[s.Name]:])), -1) {
			steps = append(steps, s.Name+":"+m[1])
		}
	}
	return steps
}
