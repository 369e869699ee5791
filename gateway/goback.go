package gateway

import "time"

// What a gateway that is stopped does first. It may not run again for hours, and until
// then a VM stands still that is paused at both sites. So moves that have not come to
// their commit go back to their source, those in it come to where the VM runs, and an
// order to run that has come in is carried out.

// goBackTime is how long all of that may take. What ends after it, processes and host routes,
// has the rest of what systemd gives the service (TimeoutStopSec of longhauld.service).
const goBackTime = 15 * time.Second

// doubtTime is how much of that moves in doubt have: enough to send an order again that
// was lost. What they wait for otherwise may take any time.
const doubtTime = 2 * time.Second

// goBack ends the gateway's moves so and stops the gateway. Destinations of moves that go
// back are told while the gateway can still talk to them: else each would keep its process
// until this gateway runs again.
func (g *Gateway) goBack() {
	defer g.stop()
	begun := time.Now()
	late := time.After(goBackTime)
	for _, j := range g.abortAll(errStopping) {
		select {
		case <-j.over:
		case <-late:
			return
		case <-g.ctx.Done():
			return
		}
	}
	for g.committing(time.Since(begun)) {
		if pause(g.ctx, windDown) != nil {
			return
		}
	}
	g.lastOrders(late)
}

// committing tells whether a commit is under way that is worth waiting for, after so long.
func (g *Gateway) committing(waited time.Duration) bool {
	for _, v := range g.jobs.list() {
		j, err := g.jobs.get(v.ID)
		if err != nil || j.settling() == nil {
			continue
		}
		if waited < doubtTime || waited < goBackTime && v.State != JobInDoubt {
			return true
		}
	}
	return false
}

// lastOrders waits until the orders to run that have come in have been carried out and
// answered, and stops the gateway before the next.
func (g *Gateway) lastOrders(late <-chan time.Time) {
	quiet := make(chan struct{})
	g.wg.Go(func() {
		g.orders.Lock()
		defer g.orders.Unlock()
		close(quiet)
		<-g.ctx.Done()
	})
	select {
	case <-quiet:
	case <-late:
	case <-g.ctx.Done():
	}
}
