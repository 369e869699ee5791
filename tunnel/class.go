package tunnel

import (
	"cmp"
	"fmt"
)

// A FlowClass is what a flow carries. Urgent channels go before all flows, and
// frames of stretched segments too: they have connections of their own, and the
// socket lets them pass first. What is left of the line is shared by weight among
// the classes that have something to send, and equally within each.
type FlowClass uint8

// The classes of flows.
const (
	MemoryFlow FlowClass = iota // pages and device state of a move
	DiskFlow                    // blocks of a disk
	SeedFlow                    // what must not be in the way: images, summaries, tests
	TailFlow                    // any of these while a VM stands still for it, see Flow.SetTail

	flowClasses = int(TailFlow) + 1
)

// FlowClasses lists them, the most important first.
func FlowClasses() []FlowClass { return []FlowClass{TailFlow, MemoryFlow, DiskFlow, SeedFlow} }

// String gives the name as config, status and metrics have it.
func (c FlowClass) String() string {
	switch c {
	case MemoryFlow:
		return "memory"
	case DiskFlow:
		return "disk"
	case SeedFlow:
		return "seed"
	case TailFlow:
		return "tail"
	}
	return "unknown"
}

// Weights say how the classes share what is left of the line. 0 is the default:
// 2048, 64, 16 and 1. A tail is not above all else, because a VM that an operator
// has paused in the middle of a move must not starve the rest.
type Weights struct{ Tail, Memory, Disk, Seed int }

// MaxWeight bounds each: with more, the least of shares would be none.
const MaxWeight = 1 << 16

// WithDefaults fills in what is 0.
func (w Weights) WithDefaults() Weights {
	return Weights{
		Tail: cmp.Or(w.Tail, 2048), Memory: cmp.Or(w.Memory, 64), Disk: cmp.Or(w.Disk, 16), Seed: cmp.Or(w.Seed, 1),
	}
}

// Of is the weight of a class.
func (w Weights) Of(c FlowClass) int {
	switch c {
	case TailFlow:
		return w.Tail
	case DiskFlow:
		return w.Disk
	case SeedFlow:
		return w.Seed
	}
	return w.Memory
}

func (w Weights) check() error {
	for _, c := range FlowClasses() {
		if n := w.Of(c); n < 0 || n > MaxWeight {
			return fmt.Errorf("tunnel: weight %d of class %v: 1 to %d", n, c, MaxWeight)
		}
	}
	return nil
}

// SetWeights changes how classes share all links, those to come as well, at once.
func (n *Node) SetWeights(w Weights) error {
	if err := w.check(); err != nil {
		return err
	}
	w = w.WithDefaults()
	n.mu.Lock()
	n.cfg.Weights = w
	n.mu.Unlock()
	for _, l := range n.Links() {
		l.mu.Lock()
		l.sched.weights = w
		l.mu.Unlock()
	}
	return nil
}

// A FlowTraffic is what a class of flows has used of a link.
type FlowTraffic struct {
	Class  FlowClass
	Weight int
	// Sent is bytes on the wire, with what packets and retransmissions add, as
	// Flow.WireSent has them.
	Sent int64
}

// flowTraffic tells what each class has used. The caller holds mu.
func (l *Link) flowTraffic() (all []FlowTraffic) {
	for _, c := range FlowClasses() {
		all = append(all, FlowTraffic{c, l.sched.weights.Of(c), l.account.byClass[c]})
	}
	return all
}

// A turn says whose turn it is: of the classes that have flows with something to
// send the one with the lowest time, and of these flows the one that has had
// least. A class's time goes on by what it sends over its weight.
type turn struct {
	now     int64              // of the class that was served last
	classes [flowClasses]int64 // time of each
	flows   [flowClasses]int64 // bytes of the flow of each that was served last
}

// MaxWeight in the unit of time; turnMost is where times are begun anew.
const (
	turnScale = MaxWeight
	turnMost  = 1 << 60
)

// before compares two flows.
func (t *turn) before(a, b *Flow, class Class) int {
	x, y := a.class(), b.class()
	return cmp.Or(cmp.Compare(t.classes[x], t.classes[y]), cmp.Compare(y, x), cmp.Compare(a.had[class], b.had[class]))
}

// join puts a flow in that had nothing to send. It may not make up for what it
// did not want, and neither may its class if that was alone.
func (t *turn) join(f *Flow, class Class, alone bool) {
	c := f.class()
	f.had[class] = max(f.had[class], t.flows[c])
	if alone {
		t.classes[c] = max(t.classes[c], t.now)
	}
}

// served notes that a flow has had n bytes.
func (t *turn) served(f *Flow, class Class, n int, w Weights) {
	c := f.class()
	t.now, t.flows[c] = t.classes[c], f.had[class]
	f.had[class] += int64(n)
	t.classes[c] += int64(n) * turnScale / int64(w.Of(c))
	if t.now > turnMost {
		for i := range t.classes {
			t.classes[i] = max(t.classes[i]-t.now, 0) // those that lie idle stay behind for ever else
		}
		t.now = 0
	}
}
