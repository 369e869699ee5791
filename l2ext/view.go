package l2ext

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// View is a segment as it is now.
type View struct {
	Segment
	Adopted  bool            // the bridge was there before us
	Device   string          // VXLAN device; "" while there is none
	Machines []MAC           // the bridges of the gateways' machines, as far as known
	Problem  string          // why it does not work, or what is odd; "" if nothing
	Err      error           // why the host cannot make it, which is its Problem, too
	Lanes    map[string]Lane // by site, in mode secure-fast
	Bindings []Binding
	Counts   map[Count]uint64
	Ways     []Way        // to the other sites
	Streams  []StreamView // how TCP connections cross, by site; none without Config.Streams
	Unheard  []string     // sites of whose hosts not all need be known: they cannot be asked

	trips map[[2]string]time.Duration // see RTT
}

// Lane is how frames of mode secure-fast get to another site.
type Lane struct {
	Works    bool   // the site has said within the last seconds that it gets what is sent
	Problem  string // why it does not, or the other way does not; "" if nothing
	Datagram int    // bytes in the longest datagram
	Epoch    uint64 // of the key that is in use towards the site; 0: there is none
}

// Binding says which site owns a MAC.
type Binding struct {
	MAC   MAC
	IPs   []netip.Addr
	Site  string
	Seq   uint64
	State BindingState
	Job   string // that moved it last, or is about to

	FrozenAt []string // sites at which it is frozen, as far as is known: there it stays where it is, see Frozen
}

// BindingState says how sure a binding is.
type BindingState string

// The states of a binding.
const (
	Confirmed BindingState = "confirmed" // no job is at work on it
	Pending   BindingState = "pending"   // a job is about to move it
	Flipped   BindingState = "flipped"   // a job has moved it, and may take it back
	Frozen    BindingState = "frozen"    // no job is at work on it, and it was claimed by two sites in turn; it stays for freezeTime, or until it is cleared or a job moves it
)

// Frames sums up the counts of a segment: frames sent to other sites, received
// from them, and dropped for any reason.
func (v View) Frames() (sent, received, dropped uint64) {
	for c, n := range v.Counts {
		if c.Dropped() {
			dropped += n
		}
	}
	return v.Counts[Sent], v.Counts[Received], dropped
}

// Segments shows all segments in the order of their names, with their bindings
// in the order of the MACs.
func (m *Manager) Segments() []View {
	var views []View
	for _, seg := range m.segments() {
		v := seg.view(m.absent(time.Now(), seg))
		m.traffic(seg, v.Counts)
		v.Streams, v.Unheard = m.streamViews(seg), m.unheard(time.Now(), seg)
		v.Problem = cmp.Or(v.Problem, m.routes.problem(seg.Name))
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b View) int { return cmp.Compare(a.Name, b.Name) })
	return views
}

// view shows a segment, and that some sites do not have it.
func (s *segment) view(absent []string) View {
	now := time.Now()
	v := View{Segment: s.Segment, Counts: s.counts.view(), Ways: s.ways.view(now)}
	v.Sites = slices.Clone(s.Sites)
	s.mu.RLock()
	defer s.mu.RUnlock()
	v.Adopted, v.Device, v.Problem = s.attached.Adopted, s.attached.Device, cmp.Or(s.problem, s.ways.problem(now), s.laneProblem(), s.loop.problem(now), absence(absent, s.VNI), s.odd, s.frozenProblem(now), s.ways.disagreement(now, s.terms()))
	v.Err, v.Lanes = s.attached.Err, maps.Clone(s.lanes)
	v.Machines = slices.AppendSeq([]MAC{s.attached.Bridge}, maps.Values(s.machines))
	v.Counts[Flips] = s.table.flips
	v.trips = s.tripView(now)
	for mac, b := range s.table.byMAC {
		if !b.withdrawn() {
			v.Bindings = append(v.Bindings, b.view(mac, s.frozenAt(now, mac, b)))
		}
	}
	slices.SortFunc(v.Bindings, func(a, b Binding) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return v
}

func (b *binding) view(mac MAC, frozenAt []string) Binding {
	v := Binding{MAC: mac, IPs: slices.Clone(b.rec.IPs), Site: b.rec.Site, Seq: b.rec.Seq, State: Confirmed, Job: b.rec.Job, FrozenAt: frozenAt}
	switch {
	case b.job == "" && len(frozenAt) > 0:
		v.State = Frozen
	case b.job == "":
	case b.rec.Cause == announce.Moved && b.rec.Job == b.job && (b.ear == nil || b.ear.to == b.rec.Site):
		v.State = Flipped
	default:
		v.State, v.Job = Pending, b.job
	}
	return v
}
