package gateway

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/longhaul-project/longhaul/tunnel"
)

// crew is an errgroup that carries one leg. Unlike that of an errgroup its
// context is not cancelled when all of it has ended well: a connection that is
// cut off when the context ends is then closed in good order instead. And it is
// cancelled when the channel of the leg fails, even if all are busy with the
// leg's connection, which may hang.
type crew struct {
	errgroup.Group
	ctx    context.Context
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when nobody watches the channel any more
}

// failedEvery is how often the channel of a leg is asked whether it has failed.
const failedEvery = 500 * time.Millisecond

func newCrew(ctx context.Context, ch *tunnel.Channel) *crew {
	c := &crew{ended: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	go c.watch(ch)
	return c
}

func (c *crew) watch(ch *tunnel.Channel) {
	defer close(c.ended)
	tick := time.NewTicker(failedEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := ch.Err(); err != nil {
				c.cancel(err)
				return
			}
		case <-c.ctx.Done():
			return
		}
	}
}

// Go runs f; an error of it cancels the context.
func (c *crew) Go(f func() error) {
	c.Group.Go(func() error {
		err := f()
		if err != nil {
			c.cancel(err)
		}
		return err
	})
}

// Wait returns when all have ended, and says what went wrong first. The context
// is left as it is until end.
func (c *crew) Wait() error {
	err := c.Group.Wait()
	if cause := context.Cause(c.ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// end cancels the context and waits for who watches the channel.
func (c *crew) end() {
	c.cancel(nil)
	<-c.ended
}
