package tunnel

import (
	"time"

	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// A Flow is one move: its channels share a rate cap, and flows share the link
// fairly, by bytes. All methods are safe for concurrent use.
type Flow struct {
	link *Link
	name string

	// What follows is guarded by link.mu.
	all  bool // it may use paths that cost more
	tail bool // and it may while a VM waits for it
	cap  shaper.Core
	wire int64 // bytes charged so far
	// lately is the bytes of bulk chunks written since the account was settled.
	lately int64
	// rings are the channels with something to send, per class, in turn.
	rings [2][]*Channel
	// costs is what a byte counts in vt: tailCost, moveCost or backgroundCost.
	costs int64
	// vt is the virtual time of the flow per class: bytes sent, moved forward
	// to the others' when it was idle. The lowest is next.
	vt [2]int64
}

// NewFlow makes a flow. The name is for logs. It needs no closing.
func (l *Link) NewFlow(name string) *Flow { return &Flow{link: l, name: name, costs: moveCost} }

// Weights, as what a byte costs: a VM that stands still is worth 32 that run, and
// what must not be in the way a sixty-fourth of one.
const (
	tailCost       = 1
	moveCost       = 32
	backgroundCost = 64 * moveCost
)

// NewBackgroundFlow makes a flow for what must not be in the way: beside others
// it gets a sixty-fourth of what one of them gets, and alone all.
func (l *Link) NewBackgroundFlow(name string) *Flow {
	return &Flow{link: l, name: name, costs: backgroundCost}
}

// Name is the name that the flow was made with.
func (f *Flow) Name() string { return f.name }

// SetRate changes the cap at once, in bytes per second on the wire; 0 removes it.
func (f *Flow) SetRate(rate int64) {
	l := f.link
	l.mu.Lock()
	defer l.mu.Unlock()
	f.cap.SetRate(time.Since(l.born), rate)
	l.wakeAll()
}

// Rate is the cap, in bytes per second on the wire; 0 for none.
func (f *Flow) Rate() int64 {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.cap.Rate()
}

// UseAll lets the flow use the paths that cost more than the cheapest, or keeps
// it from them.
func (f *Flow) UseAll(yes bool) {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	f.all = yes
	f.link.wakeAll()
}

// SetTail says that a VM stands still until the rest of the flow has crossed: it
// goes before what other flows send, which get 1/33 of the line meanwhile, and
// over all paths. It may be taken back.
func (f *Flow) SetTail(yes bool) {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	f.tail, f.costs = yes, moveCost
	if yes {
		f.costs = tailCost
	}
	f.link.wakeAll()
}

// WireSent is about how many bytes on the wire the flow has used: its chunks,
// times what the link's packets and retransmissions add.
func (f *Flow) WireSent() int64 {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.wire
}
