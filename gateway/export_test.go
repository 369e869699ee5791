package gateway

import (
	"time"

	"github.com/longhaul-project/longhaul/dedup"
)

// MaxForwardConns is how many connections of one forward may be open at once.
const MaxForwardConns = maxForwardConns

// Crash is the nearest thing to kill -9 inside one process: from now on the
// gateway writes nothing down and reaches nobody. The caller takes away its
// control connections and its link.
func (g *Gateway) Crash() {
	g.journal.Close()
	g.stop()
}

// EndsWithin tells whether the gateway stops all that it does within d.
func (g *Gateway) EndsWithin(d time.Duration) bool {
	select {
	case <-g.ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}

// OpenMoves lists the moves that the journal holds open.
func (g *Gateway) OpenMoves() (open []Entry, err error) {
	all, err := g.journal.All()
	for _, e := range all {
		if e.Open() {
			open = append(open, e)
		}
	}
	return open, err
}

// Hurry shortens what the gateway waits for. Call it before Run.
func (g *Gateway) Hurry(query, standstill, switchover time.Duration) {
	g.patience = patience{query, standstill, switchover, drainTime}
}

// DrainFor is how long connections of moves that are given up from now on go on when nothing
// arrives any more.
func (g *Gateway) DrainFor(d time.Duration) { g.patience.drain = d }

// HurryImages shortens how often peers are asked what they have, and directories are
// looked at, and how often what was read is noted. Call it before Run.
func (g *Gateway) HurryImages(every time.Duration) {
	g.hearEvery, g.keepEvery, g.noteEvery = every, every, every
}

// Spoil has f change the messages of moves that begin from now on.
func (g *Gateway) Spoil(f func(msg []byte)) { g.spoil = f }

// RefusePages has the gateway refuse, or not, what peers have lost.
func (g *Gateway) RefusePages(refuse bool) { g.noPages.Store(refuse) }

// Store is what this gateway and a peer both hold, or nil.
func (g *Gateway) Store(site string) *dedup.Store { return g.TenantStore(site, "") }

// TenantStore is what they hold for a tenant.
func (g *Gateway) TenantStore(site, tenant string) *dedup.Store {
	c := g.commonOf(commonKey{site, tenant})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store
}

// Moves lists all that is in the journal.
func (g *Gateway) Moves() ([]Entry, error) { return g.journal.All() }

// Sinks counts the moves to this site that are in memory.
func (g *Gateway) Sinks() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sinks)
}

// Asking tells whether the source of a move is being asked about it, rather
// than giving orders.
func (g *Gateway) Asking(token string) bool {
	m := g.sinkMove(token)
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.asking && m.ctl != nil
}

// RefuseJournal has the journal ask f before it takes an entry; nil ends that.
func (g *Gateway) RefuseJournal(f func(Entry) error) {
	if f == nil {
		g.journal.refuse.Store(nil)
		return
	}
	g.journal.refuse.Store(&f)
}

// WriteJournal takes an entry behind the gateway's back.
func (g *Gateway) WriteJournal(e Entry) error {
	refuse := g.journal.refuse.Swap(nil)
	defer g.journal.refuse.Store(refuse)
	return g.journal.Put(e)
}

// SplitAddress is splitAddress.
func SplitAddress(a string) (network, address string, err error) { return splitAddress(a) }

// HurryLinkTests shortens the tests of links that begin from now on.
func (g *Gateway) HurryLinkTests(idle, load time.Duration) { g.tests.idle, g.tests.load = idle, load }

// ServesLinkTest tells whether a site's test of the link to here is being served.
func (g *Gateway) ServesLinkTest(site string) bool { return g.served.serves(site) }
