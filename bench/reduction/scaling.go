package reduction

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/longhaul-project/longhaul/internal/ordered"
)

// Scale is the cold stream with its parallel stage on a number of cores.
type Scale struct {
	Method string        `json:"method"`
	Cores  int           `json:"cores"`
	Raw    int64         `json:"raw_bytes"`
	Took   time.Duration `json:"took_ns"`      // by the clock
	Used   time.Duration `json:"processor_ns"` // processor time
	Free   time.Duration `json:"free_ns"`      // by the clock, if the cores were free
}

// scaling encodes a stream with the compression on 1 and on n cores, count
// times, of which the shortest times count.
func scaling(ctx context.Context, stream []byte, n, count int) (all []Scale, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, set := range settings()[:2] { // the others have more to do in parallel, and scale better
		for _, cores := range []int{1, n} {
			runtime.GOMAXPROCS(cores)
			best := Scale{Method: set.name, Cores: cores, Raw: int64(len(stream))}
			for i := range count {
				took, used, err := parallel(ctx, stream, set, cores)
				if err != nil {
					return nil, fmt.Errorf("on %d cores: %w", cores, err)
				}
				if i == 0 {
					best.Took, best.Used = took, used
				}
				best.Took, best.Used = min(best.Took, took), min(best.Used, used)
			}
			all = append(all, best)
		}
	}
	return all, nil
}

// parallel encodes a stream as the gateway does: one goroutine cuts batches,
// n compress them.
func parallel(ctx context.Context, stream []byte, set setting, n int) (took, used time.Duration, err error) {
	s := newPair(len(stream)).open(set)
	defer s.close()
	type message struct {
		b   batch
		msg []byte
	}
	cut := make(chan batch) // unbuffered: Map bounds what waits
	begin := time.Now()
	used, err = spent(func() error {
		begin = time.Now()
		failed := make(chan error, 1)
		go func() {
			defer close(cut)
			failed <- s.encode(stream, func(b batch) error {
				select {
				case cut <- b:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
		}()
		err := ordered.Map(ctx, n, cut,
			func(b batch) (message, error) {
				msg, err := b.Compress()
				return message{b, msg}, err
			},
			func(m message) error { s.keep(m.b, m.msg); return nil })
		if err != nil {
			return err
		}
		return <-failed
	})
	return time.Since(begin), used, err
}
