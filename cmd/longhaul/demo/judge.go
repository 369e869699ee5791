package demo

import "fmt"

// The targets that a demo is judged by.
const (
	pingsBeyondPause = 2  // pings at 10 ms that may be lost on top of the VM's own pause
	pingEvery        = 10 // milliseconds
)

// judge says what is wrong.
func (d *Document) judge(moves int) {
	bad := func(format string, args ...any) { d.Problems = append(d.Problems, fmt.Sprintf(format, args...)) }
	f := d.Longhaul
	if f == nil {
		bad("no move by Longhaul")
		return
	}
	if len(d.Moves) != moves {
		bad("%d moves of %d", len(d.Moves), moves)
	}
	if f.PagesWrong > 0 || f.BlocksWrong > 0 || f.PagesVerified == 0 {
		bad("%d of %d pages and %d blocks are wrong", f.PagesWrong, f.PagesVerified, f.BlocksWrong)
	}
	if !f.SessionAlive || !f.SameIP || !f.SameMAC {
		bad("session alive %v, same IP %v, same MAC %v", f.SessionAlive, f.SameIP, f.SameMAC)
	}
	if f.ForeignBeats > 0 {
		bad("a second copy of the VM has written its disk")
	}
	var pause int64
	for _, m := range d.Moves {
		pause += m.Downtime/pingEvery + pingsBeyondPause
	}
	if int64(f.PingsLost) > pause {
		bad("%d pings lost, the pauses explain %d", f.PingsLost, pause)
	}
	if p := d.Plain; p != nil && (3*f.Wire > p.Wire || 2*f.Total > p.Total || f.Downtime > p.Downtime) {
		bad("not better than plain QEMU: %d bytes to %d, %d ms to %d, downtime %d ms to %d", f.Wire, p.Wire, f.Total, p.Total, f.Downtime, p.Downtime)
	}
	d.judgeDrift(bad)
	d.OK = len(d.Problems) == 0
}
