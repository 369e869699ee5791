package tunnel

import (
	"time"

	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// A Flow is one move: its channels share a rate cap, and flows share the link
// by the weights of their classes, and in each fairly, by bytes. All methods are safe for concurrent use.
type Flow struct {
	link *Link
	name string
	of   FlowClass

	// What follows is guarded by link.mu.
	all  bool // it may use paths that cost more
	tail bool // and it may while a VM waits for it
	cap  shaper.Core
	wire int64 // bytes charged so far
	copy int64 // bytes of chunks sent again, of these
	// given is the bytes of bulk that it has given to connections, and dear those of them
	// that went over paths that cost more than the cheapest.
	given, dear int64
	// lately is the bytes of bulk chunks written since the account was settled.
	lately int64
	// rings are the channels with something to send, per class, in turn.
	rings [2][]*Channel
	// had is the bytes that it has sent, per class of channels, moved to those of
	// the others when it had nothing to send. Of its class the lowest is next.
	had [2]int64
}

// NewFlow makes a flow for the memory of a VM. The name is for logs. It needs no
// closing.
func (l *Link) NewFlow(name string) *Flow { return &Flow{link: l, name: name, of: MemoryFlow} }

// NewDiskFlow makes one for the blocks of disks, which have more time than memory:
// what has been copied of them seldom changes again.
func (l *Link) NewDiskFlow(name string) *Flow { return &Flow{link: l, name: name, of: DiskFlow} }

// NewBackgroundFlow makes one for what must not be in the way (SeedFlow): beside
// others it gets hardly anything, and alone all.
func (l *Link) NewBackgroundFlow(name string) *Flow { return &Flow{link: l, name: name, of: SeedFlow} }

// class is that of the flow now.
func (f *Flow) class() FlowClass {
	if f.tail {
		return TailFlow
	}
	return f.of
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

// Spread is how many bytes of bulk it has given to connections so far, and how many of them
// to such of paths that cost more than the cheapest.
func (f *Flow) Spread() (given, dear int64) {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.given, f.dear
}

// SetTail says that a VM stands still until the rest of the flow has crossed: it
// is of the class TailFlow, before which others get 1/33 of the line, and goes over
// all paths. Whenever it has nothing new to send, what is on its way goes
// again over another path, and what is overdue over another connection, so that
// no loss has to be waited for (again.go). It may be taken back.
func (f *Flow) SetTail(yes bool) {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	if f.tail == yes {
		return
	}
	f.tail = yes
	s := &f.link.sched
	for class := range s.queues {
		q := &s.queues[class]
		f.had[class] = q.turn.flows[f.class()] // other flows are what it is compared with now
		if len(f.rings[class]) > 0 {
			q.turn.join(f, Class(class), q.alone(f))
		}
	}
	for _, ch := range f.link.channels {
		s.watch(ch)
	}
	f.link.wakeAll()
}

// spread notes n bytes that a connection has taken. The caller holds link.mu.
func (f *Flow) spread(n int, dear bool) {
	f.given += int64(n)
	if dear {
		f.dear += int64(n)
	}
}

// Copied is how many bytes of it have been sent again before a loss was known.
func (f *Flow) Copied() int64 {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.copy
}

// WireSent is about how many bytes on the wire the flow has used: its chunks,
// times what the link's packets and retransmissions add.
func (f *Flow) WireSent() int64 {
	f.link.mu.Lock()
	defer f.link.mu.Unlock()
	return f.wire
}
