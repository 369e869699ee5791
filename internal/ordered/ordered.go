// Package ordered maps items in parallel and delivers the results in the order
// of arrival, in bounded memory: at most n results wait for an earlier one.
//
// A hand-over costs about a microsecond, so an item should be a batch of
// pages, never one page.
package ordered

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Map reads in until it is closed, applies f in up to n goroutines and calls
// deliver with each result, in the order of arrival and from one goroutine.
// The first error of f or deliver, or the end of ctx, ends it; items that were
// under way are then dropped. When Map returns, all its goroutines have ended.
func Map[T, R any](ctx context.Context, n int, in <-chan T, f func(T) (R, error), deliver func(R) error) error {
	g, ctx := errgroup.WithContext(ctx)
	slots := make(chan chan R, max(n, 1)) // the order of arrival; its capacity bounds what waits
	work := make(chan job[T, R])          // unbuffered: slots already bounds
	g.Go(func() error {
		defer close(slots)
		defer close(work)
		return take(ctx, in, slots, work)
	})
	for range max(n, 1) {
		g.Go(func() error { return serve(ctx, work, f) })
	}
	g.Go(func() error { return drain(ctx, slots, deliver) })
	return g.Wait()
}

type job[T, R any] struct {
	item T
	slot chan R
}

// take gives every item its place in the order, then hands it to a worker.
func take[T, R any](ctx context.Context, in <-chan T, slots chan<- chan R, work chan<- job[T, R]) error {
	for {
		var item T
		var ok bool
		select {
		case item, ok = <-in:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		slot := make(chan R, 1) // a worker never waits for the delivery
		select {
		case slots <- slot:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case work <- job[T, R]{item, slot}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func serve[T, R any](ctx context.Context, work <-chan job[T, R], f func(T) (R, error)) error {
	for {
		select {
		case j, ok := <-work:
			if !ok {
				return nil
			}
			r, err := f(j.item)
			if err != nil {
				return err
			}
			j.slot <- r
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func drain[R any](ctx context.Context, slots <-chan chan R, deliver func(R) error) error {
	for {
		var slot chan R
		var ok bool
		select {
		case slot, ok = <-slots:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case r := <-slot:
			if err := deliver(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
