package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// halfLink is b's end of a link to a, with a set in use that nothing carries.
func halfLink(t *testing.T) (*Link, *carrier) {
	t.Helper()
	n, err := New(config("b", nil))
	if err != nil {
		t.Fatal(err)
	}
	l, err := n.linkTo("a")
	if err != nil {
		t.Fatal(err)
	}
	c := &carrier{link: l, role: frame.Priority, wake: make(chan struct{}, 1)}
	c.set = &set{priority: c, ready: true}
	l.set = c.set
	return l, c
}

// The application consumes the last message after an ack was written that does not
// tell so, and before it asks for another one: the channel is not forgotten until
// the peer has been told, which waits for it in Flush.
func TestForgetsNoChannelUntold(t *testing.T) {
	t.Parallel()
	l, c := halfLink(t)
	ch, err := l.Open(t.Context(), Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.CloseSend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.deliver(frame.Chunk{Channel: ch.id, Seq: 1, Total: 1, Len: 1}, []byte{7}); err != nil {
		t.Fatal(err)
	}
	peer := func(f frame.Frame) {
		t.Helper()
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, err := l.dispatch(f); err != nil {
			t.Fatal(err)
		}
	}
	peer(frame.Fin{Channel: ch.id, Last: 1})
	if _, err := ch.Recv(t.Context()); err != nil {
		t.Fatal(err)
	}
	if acks := acksIn(t, l.compose(c, nil)); len(acks) != 1 || acks[0].Received != 1 || acks[0].Done != 0 {
		t.Fatalf("before the message was consumed: %+v", acks)
	}

	ch.in.consume(1) // the first half of Done
	peer(frame.Ack{Channel: ch.id, Flags: frame.FlagFin, Window: baseWindow})
	l.mu.Lock()
	if l.channels[ch.id] != ch {
		t.Error("the channel was forgotten, and the peer waits for ever")
	} else {
		ch.mark(needAck) // the second half
	}
	l.mu.Unlock()

	if acks := acksIn(t, l.compose(c, nil)); len(acks) != 1 || acks[0].Done != 1 || acks[0].Flags&frame.FlagFin == 0 {
		t.Errorf("after it was consumed: %+v", acks)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.channels) > 0 {
		t.Errorf("%d channels are left", len(l.channels))
	}
}

// acksIn are the acks among control frames.
func acksIn(t *testing.T, b []byte) (acks []frame.Ack) {
	t.Helper()
	for len(b) > 0 {
		f, n, err := frame.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := f.(frame.Ack); ok {
			acks = append(acks, a)
		}
		b = b[n:]
	}
	return acks
}

// Questions with a short answer, many and at once: each answer's Flush ends, however
// the end of one way, the last message of the other and what is said of both meet.
func TestManyShortChannels(t *testing.T) {
	t.Parallel()
	const channels, askers = 3000, 8
	inLab(t, testwan.Line{Delay: time.Millisecond}, options{}, func(t *testing.T, l *lab) {
		l.up()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for range askers {
			wg.Go(func() {
				for range channels / askers {
					if err := inquire(ctx, l.a.Link("b")); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range channels {
			ch, err := l.b.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if err := reply(ctx, ch); err != nil {
					t.Errorf("channel %d: %v", ch.ID(), err)
				}
			})
		}
		wg.Wait()
	})
}

func inquire(ctx context.Context, l *Link) error {
	ch, err := l.Open(ctx, Spec{BackBulk: true})
	if err != nil {
		return err
	}
	if err := ch.CloseSend(ctx); err != nil {
		return err
	}
	for {
		m, err := ch.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for an answer: %w", err)
		}
		ch.Done(m.Seq)
	}
}

func reply(ctx context.Context, ch *Channel) error {
	if _, err := ch.Send(ctx, []byte("answer")); err != nil {
		return err
	}
	if err := ch.CloseSend(ctx); err != nil {
		return err
	}
	return ch.Flush(ctx)
}
