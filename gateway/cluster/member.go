package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// State is what the membership says of a gateway.
type State string

// The states.
const (
	Alive   State = "alive"
	Suspect State = "suspect" // does not answer, may still
	Dead    State = "dead"    // has not answered for too long
	Left    State = "left"    // was stopped cleanly
	Unknown State = "unknown" // has not been heard of
)

// Member is a gateway of the fleet, this one included.
type Member struct {
	Name        string // SITE/GATEWAY
	Site        string
	Gateway     string
	State       State
	Since       time.Time // when it came to this state, as this gateway saw it
	Why         string    // of a state other than alive
	Incarnation uint32    // rises whenever the member refutes its death or changes its Meta
	Meta        Meta
}

// keepGone is how long a dead or left member stays in the list.
const keepGone = 7 * 24 * time.Hour

// table is what is known of all members, also those that memberlist forgot.
type table struct {
	mu      sync.Mutex // guards what follows
	members map[string]*Member
}

// list gives all members by name.
func (t *table) list() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Member, 0, len(t.members))
	for _, m := range t.members {
		if m.State != "" {
			all = append(all, *m)
		}
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// site gives the member of a site that is best off.
func (t *table) site(site string) (best Member) {
	best = Member{Site: site, State: Unknown, Why: "has not been heard of"}
	for _, m := range t.list() {
		if m.Site == site && rank(m.State) > rank(best.State) {
			best = m
		}
	}
	return best
}

func rank(s State) int { return slices.Index([]State{Unknown, Left, Dead, Suspect, Alive}, s) }

// room refuses a name that would be one too many. It keeps the place of a new
// one until update sees it; the member that has been gone for longest makes room.
func (t *table) room(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.members[name] != nil {
		return nil
	}
	if len(t.members) >= maxMembers {
		oldest := ""
		for name, m := range t.members {
			if rank(m.State) <= rank(Dead) && m.State != "" && (oldest == "" || m.Since.Before(t.members[oldest].Since)) {
				oldest = name
			}
		}
		if oldest == "" {
			return fmt.Errorf("%s is one member too many, limit %d", name, maxMembers)
		}
		delete(t.members, oldest)
	}
	site, gateway, err := splitName(name)
	t.members[name] = &Member{Name: name, Site: site, Gateway: gateway}
	return err
}

// update compares the table with memberlist's state, and gives the members
// whose state or Meta has changed, by name.
func (t *table) update(now time.Time, nodes []nodeState) (changed []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[string]bool{}
	for _, n := range nodes {
		seen[n.name] = true
		if m := t.take(now, n); m != nil {
			changed = append(changed, *m)
		}
	}
	for name, m := range t.members {
		switch {
		case seen[name]:
		case m.State == Alive || m.State == Suspect:
			// memberlist forgets the dead only, so it died and was
			// forgotten between two looks.
			m.turn(now, Dead)
			changed = append(changed, *m)
		case now.Sub(m.Since) > keepGone:
			delete(t.members, name)
		}
	}
	slices.SortFunc(changed, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return changed
}

// take brings one member up to date; nil if nothing that matters has changed.
func (t *table) take(now time.Time, n nodeState) *Member {
	site, gateway, err := splitName(n.name)
	if err != nil {
		return nil
	}
	meta, _ := ParseMeta(n.meta) // judged when it came in
	state := stateOf(n.state)
	m := t.members[n.name]
	if m == nil {
		m = &Member{Name: n.name, Site: site, Gateway: gateway}
		t.members[n.name] = m
	}
	m.Incarnation = n.incarnation
	if m.State == state && m.Meta == meta {
		return nil
	}
	m.Meta = meta
	if m.State != state {
		m.turn(now, state)
	}
	return m
}

// turn puts a member into another state.
func (m *Member) turn(now time.Time, state State) {
	switch state {
	case Suspect:
		m.Why = "does not answer"
	case Dead:
		m.Why = "did not answer"
		if m.State == Suspect {
			m.Why = fmt.Sprintf("did not answer for %v", now.Sub(m.Since).Round(time.Second))
		}
	case Left:
		m.Why = "was stopped"
	default:
		m.Why = ""
	}
	m.State, m.Since = state, now
}

func stateOf(s memberlist.NodeStateType) State {
	switch s {
	case memberlist.StateAlive:
		return Alive
	case memberlist.StateSuspect:
		return Suspect
	case memberlist.StateDead:
		return Dead
	case memberlist.StateLeft:
		return Left
	}
	return Unknown
}
