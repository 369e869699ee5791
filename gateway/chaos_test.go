package gateway_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel"
)

// A blow is something bad in a phase of a move: a gateway or both are killed or
// stopped, and start again; control connections drop; the WAN is cut for a moment;
// a call fails before or after it took effect; the disk of a journal is full for some
// entries; a hypervisor does not tell a VM's state for a while; a site is taken out of
// the config and put back.
type blow struct {
	at      phase
	what    string
	reached chan struct{} // closed when the phase waits for the blow
	goOn    chan struct{}
	struck  bool // goOn is closed
}

var ills = []string{
	"kill source", "kill sink", "kill both", "stop source", "stop sink", "cut", "drop source", "drop sink", "fail", "fail after",
	"disk source", "disk sink", "blur source", "blur sink", "reload source", "reload sink",
}

// follow are calls that a move makes when something has gone wrong, or that other
// things than a move make as well. They need not come.
var follow = []phase{
	{hvtest.StepCancel, false}, {hvtest.StepResume, false}, {hvtest.StepSource, false}, {hvtest.StepState, false},
	{hvtest.StepDiscard, true}, {hvtest.StepAttach, true}, {hvtest.StepAnnounce, true},
}

func newBlow(r *rand.Rand, at []phase) *blow {
	b := &blow{at: at[r.IntN(len(at))], what: ills[r.IntN(len(ills))], reached: make(chan struct{}), goOn: make(chan struct{})}
	if b.at.step == hvtest.StepPrepare && b.what == "fail after" {
		b.what = "fail" // Prepare promises to leave nothing when it fails
	}
	return b
}

func (b *blow) String() string { return fmt.Sprintf("at %s: %s", b.at, b.what) }

// inject has the phase wait for the blow. What a gateway that is killed was doing
// is not done.
func (b *blow) inject(from, to *site) {
	f := hvtest.Fault{Step: b.at.step, After: b.what == "fail after", Reached: b.reached, Wait: b.goOn}
	host, dies := from.host, "kill source"
	if b.at.sink {
		host, dies = to.host, "kill sink"
	}
	if strings.HasPrefix(b.what, "fail") || b.what == "kill both" || b.what == dies {
		f.Err = errors.New("broken on purpose")
	}
	host.Inject(f)
}

// ends are the sites whose gateways the blow ends.
func (b *blow) ends(from, to *site) []*site {
	switch b.what {
	case "kill source", "stop source":
		return []*site{from}
	case "kill sink", "stop sink":
		return []*site{to}
	case "kill both":
		return []*site{from, to}
	}
	return nil
}

// strike does it. What was killed or stopped has started when it returns.
func (b *blow) strike(f *fight) {
	b.struck = true
	at := f.from
	if strings.HasSuffix(b.what, "sink") {
		at = f.to
	}
	switch what, _, _ := strings.Cut(b.what, " "); what {
	case "cut":
		f.wan.Cut()
		time.AfterFunc(time.Duration(f.r.IntN(500))*time.Millisecond, f.wan.Heal)
	case "drop":
		at.host.DropGateway()
	case "disk":
		at.fillDisk(1 + f.r.IntN(6))
	case "blur":
		at.host.Blur("db1", 1+f.r.IntN(12))
	case "reload":
		at.reload(f.t, nil)
		node := at.node // not that of its next run, which has them
		time.AfterFunc(time.Duration(f.r.IntN(500))*time.Millisecond, func() { node.SetPeers(at.peers) })
	}
	ends := b.ends(f.from, f.to)
	end := func(s *site) { s.stop() }
	if strings.HasPrefix(b.what, "kill") {
		end = func(s *site) { s.kill() }
		for _, s := range ends {
			s.crash()
		}
	}
	close(b.goOn)
	for _, s := range ends {
		f.pass(func() { end(s) })
	}
	for _, s := range ends {
		s.start()
	}
}

// fillDisk has a site's journal not take the next entries.
func (s *site) fillDisk(entries int) {
	var left atomic.Int64
	left.Store(int64(entries))
	s.g.RefuseJournal(func(gateway.Entry) error {
		if left.Add(-1) >= 0 {
			return errDisk
		}
		return nil
	})
}

// reload gives a gateway other peers.
func (s *site) reload(t testing.TB, peers []tunnel.Peer) {
	if err := s.node.SetPeers(peers); err != nil {
		t.Error(err)
	}
}

// A fight is one move under blows.
type fight struct {
	t        testing.TB
	from, to *site
	wan      *testwan.WAN
	r        *rand.Rand
	blows    []*blow
}

// pass lets a phase pass that is reached while deed ends a gateway, which waits
// for all that it does.
func (f *fight) pass(deed func()) {
	var wg sync.WaitGroup
	over := make(chan struct{})
	for _, b := range f.blows {
		if b.struck {
			continue
		}
		wg.Go(func() {
			select {
			case <-b.reached:
				b.struck = true
				close(b.goOn)
			case <-over:
			}
		})
	}
	deed()
	close(over)
	wg.Wait()
}

// chaos moves a VM to the other site while one or two blows strike, and then home
// or on at once. It runs at exactly one site, the job says where, and nothing of
// what was is left.
func chaos(t *testing.T, seed uint64, a, b *site, wan *testwan.WAN, ledger *hvtest.Ledger, d *diary) {
	r := rand.New(rand.NewPCG(seed, 0))
	from, to := a, b
	if where := ledger.Running("db1"); !slices.Equal(where, []string{"host-a"}) {
		from, to = b, a
	}
	lag := []time.Duration{0, 0, 30 * time.Millisecond, 100 * time.Millisecond}[r.IntN(4)]
	a.host.Slow(seed, lag)
	b.host.Slow(seed+1, lag)
	f := &fight{t, from, to, wan, r, []*blow{newBlow(r, phases)}}
	if r.IntN(2) == 0 {
		f.blows = append(f.blows, newBlow(r, slices.Concat(phases, follow)))
	}
	note := fmt.Sprintf("seed %d: from %s, with a lag of %v, %v", seed, from.name, lag, f.blows)
	begun := time.Now()
	d.clear()
	defer func() {
		if took := time.Since(begun); took > chaosTime {
			t.Logf("%s; it took %v\n%s", note, took, d)
		}
		if t.Failed() {
			t.Logf("%s\n%sat a:\n%s%sat b:\n%s%s", note, d, a.host, a.story(b.name), b.host, b.story(a.name))
		}
	}()
	end := f.run(t)
	where := ledger.Running("db1")
	if len(where) != 1 || (end.State == gateway.JobDone) != (where[0] == "host-"+to.name) {
		t.Fatalf("%s: the job is %s (%s), and db1 runs at %v\n%s", note, end.State, end.Error, where, ledger)
	}
	if end.State == gateway.JobDone {
		from, to = to, from
	}
	meet(a, b)
	if next := from.wait(from.begin(to.name).ID); next.State != gateway.JobDone {
		t.Fatalf("%s: the job is %s (%s), and the next from %s %s: %s", note, end.State, end.Error, from.name, next.State, next.Error)
	}
	noMoves(t, a, b)
	onlyAt(t, to, from, ledger)
	noChannels(t, 0, a, b)
}

// A diary keeps the last lines of what the gateways of a test log.
type diary struct {
	mu    sync.Mutex
	lines []string
}

// diaryLines is more than what two gateways log in a move and its restarts.
const diaryLines = 400

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lines) == diaryLines {
		d.lines = slices.Delete(d.lines, 0, diaryLines/4)
	}
	d.lines = append(d.lines, string(p))
	return len(p), nil
}

func (d *diary) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = nil
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "")
}

// story tells of the last move at a site and of its link to another.
func (s *site) story(peer string) string {
	jobs, _ := s.g.Jobs(context.Background()) // it has no error
	if len(jobs) == 0 {
		return "no move\n"
	}
	j, l := jobs[len(jobs)-1], s.node.Link(peer).State()
	l.Flows, l.Paths, l.Drops = nil, nil, tunnel.Drops{}
	return fmt.Sprintf("%s, %s, safe %q\nlink %+v\n", j.State, j.Phase, j.Safe, l)
}

// run moves db1 under the blows and returns how the job ended.
func (f *fight) run(t *testing.T) (end gateway.Job) {
	f.blows[0].inject(f.from, f.to)
	j := f.from.begin(f.to.name)
	for _, b := range f.blows[1:] {
		b.inject(f.from, f.to) // now, as the beginning of a move asks the hypervisor too
	}
	until(t, "the job ends", func() bool {
		for _, b := range f.blows {
			select {
			case <-b.reached:
				if !b.struck {
					b.strike(f)
				}
			default:
			}
		}
		v, err := f.from.g.Job(t.Context(), j.ID) // a gateway that starts has not read its journal yet
		end = v
		return err == nil && v.State.Ended()
	})
	for _, s := range []*site{f.from, f.to} {
		s.host.ClearFaults()
		s.g.RefuseJournal(nil)
		s.reload(t, s.peers)
	}
	for _, b := range f.blows {
		if !b.struck {
			close(b.goOn)
		}
	}
	return end
}

// meet waits until the gateways of two sites know that they have each other, and
// not a former run.
func meet(a, b *site) {
	a.t.Helper()
	until(a.t, "the gateways meet", func() bool {
		la, lb := a.node.Link(b.name), b.node.Link(a.name)
		return la.Epoch() == b.node.Epoch() && lb.Epoch() == a.node.Epoch() && la.State().Up && lb.State().Up
	})
}

var (
	chaosSeed  = flag.Uint64("chaos.seed", rand.Uint64(), "seed of the first move of TestChaos; the next have the next numbers")
	chaosMoves = flag.Int("chaos.moves", 0, "TestChaos makes so many moves, however long they take; 0: up to 50 in its time")
)

// chaosTime is how long TestChaos begins new moves.
const chaosTime = 8 * time.Second

// TestChaos makes 50 moves, or as many as fit into its time; the seed of a
// failure is printed.
func TestChaos(t *testing.T) {
	t.Parallel()
	wan := newWAN(t)
	d := new(diary)
	a, b, ledger := newPairWith(t, hvtest.Guest{}, wan, func(s *site) { s.diary = d })
	moves, end := cmp.Or(*chaosMoves, 50), time.Now().Add(chaosTime)
	for n := range moves {
		if *chaosMoves == 0 && time.Now().After(end) {
			t.Logf("%d of %d moves", n, moves)
			break
		}
		chaos(t, *chaosSeed+uint64(n), a, b, wan, ledger, d)
		if t.Failed() {
			return
		}
	}
}
