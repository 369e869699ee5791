package tunnel

import (
	"context"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestKnownLine: when the path of the priority connection dies, what is known of the
// other one holds for the new set of connections over it.
func TestKnownLine(t *testing.T) {
	t.Parallel()
	inLab(t, wide, options{}, func(t *testing.T, l *lab) {
		l.line(ipA2, narrow)
		paths := uplinks(0)
		paths[0].Rate, paths[1].Rate = 0, 0
		l.setPaths(paths)
		l.up()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.stream(ctx, nil)
		time.Sleep(5 * time.Second)
		link := l.a.Link("b")
		link.mu.Lock()
		first, other := link.set.priority.path, link.paths[0]
		if other == first {
			other = link.paths[1]
		}
		set := link.set
		link.mu.Unlock()
		before := other.model.State().Bandwidth
		l.line(first.conf.Source, away)
		for n, anew := 0, false; !anew; n++ {
			if n > 1000 {
				t.Fatal("no new set of connections")
			}
			time.Sleep(10 * time.Millisecond)
			link.mu.Lock()
			anew = link.set != nil && link.set != set && link.set.ready
			link.mu.Unlock()
		}
		if after := other.model.State().Bandwidth; before == 0 || after < before/2 {
			t.Errorf("path %s carried %d bytes a second; after %s has died it is taken to carry %d", other.name, before, first.name, after)
		}
		if _, gap := s.take(5 * time.Second); gap > 3*time.Second {
			t.Errorf("nothing came for %v", gap)
		}
	})
}

// TestBackoff: connections that were dialed together and fail together have failed once.
func TestBackoff(t *testing.T) {
	var b backoff
	now := time.Now()
	for range 4 {
		b.failed(now)
	}
	if b.tries != 1 || b.pause != backoffMin || b.after.Sub(now) > backoffMin {
		t.Errorf("%+v after four failures at once", b)
	}
	b.failed(b.after)
	if b.tries != 2 || b.pause != 2*backoffMin {
		t.Errorf("%+v after another one", b)
	}
}

// TestChangedSource: a path from another address of ours is another line, of which
// nothing is known.
func TestChangedSource(t *testing.T) {
	t.Parallel()
	inLab(t, wide, options{}, func(t *testing.T, l *lab) {
		// What is sent at first over a line that is not known, five times what QUIC may
		// send at first (RFC 9002, section 7.2), is lost for the most part on one of 300 kB
		// a second, and takes up to 2.2 s to be repaired in order; here a third of that.
		l.line(ipA2, testwan.Line{Delay: narrow.Delay, Rate: 600_000, Loss: narrow.Loss})
		from := func(source string) []Path {
			return []Path{{Name: "wan", Source: source, Addrs: []string{ipB + ":7447"}}}
		}
		l.setPaths(from(ipA))
		l.up()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := l.stream(ctx, nil)
		time.Sleep(5 * time.Second)
		link := l.a.Link("b")
		link.mu.Lock()
		p := link.paths[0]
		link.mu.Unlock()
		before := p.model.State().Bandwidth
		l.setPaths(from(ipA2))
		if err := link.WaitUp(ctx); err != nil {
			t.Fatal(err)
		}
		if after := p.model.State().Bandwidth; before == 0 || after > before/2 {
			t.Errorf("%d bytes a second over the old line, and taken for %d over the new one", before, after)
		}
		if _, gap := s.take(5 * time.Second); gap > 2*time.Second {
			t.Errorf("nothing came for %v", gap)
		}
	})
}
