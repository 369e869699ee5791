package tunnel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// advanceLine takes 150 ms to carry 1.5 MB and 100 ms to bring them.
var advanceLine = testwan.Line{Delay: 100 * time.Millisecond, Rate: 10_000_000, Queue: 1_000_000}

func rated(c *Config) { c.Rate = 10_000_000 }

// TestAdvance: what follows the opening of a channel does not wait for the peer's
// answer to it.
func TestAdvance(t *testing.T) {
	t.Parallel()
	inLab(t, advanceLine, options{a: rated, b: rated}, func(t *testing.T, l *lab) {
		l.up()
		time.Sleep(2 * time.Second)
		link := l.a.Link("b")
		begin := time.Now()
		from, err := link.Open(t.Context(), Spec{})
		if err != nil {
			t.Fatal(err)
		}
		for range 15 {
			if _, err := from.Send(t.Context(), make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
		}
		to, err := l.b.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 15 {
			m, err := to.Recv(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			to.Done(m.Seq)
		}
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("1.5 MB took %v on a line that carries them in 250ms", took)
		}
		if err := from.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := advanced(link); n != 0 {
			t.Errorf("%d bytes of advance are in use by a channel that knows its window", n)
		}
	})
}

// TestAdvanceIsShared: channels that are opened together have no more in advance than
// the peer has promised, however many they are and however little it can hold; none
// costs the link when all send what they may; and those that end give back theirs.
func TestAdvanceIsShared(t *testing.T) {
	t.Parallel()
	small := func(c *Config) { rated(c); c.Memory = 8 << 20 }
	inLab(t, advanceLine, options{a: rated, b: small}, func(t *testing.T, l *lab) {
		l.up()
		time.Sleep(2 * time.Second)
		link, before := l.a.Link("b"), inUse(l.b.Link("a")).id
		var channels []*Channel
		for range 20 {
			ch, err := link.Open(t.Context(), Spec{})
			if err != nil {
				t.Fatal(err)
			}
			channels = append(channels, ch)
			synctestSend(t, ch)
		}
		if n := advanced(link); n < 900<<10 || n > 1<<20 {
			t.Errorf("%d bytes are sent in advance, to a peer that permits 1 MiB", n)
		}
		urgent, err := link.Open(t.Context(), Spec{Class: Urgent})
		if err != nil {
			t.Fatal(err)
		}
		if urgent.advance != 0 {
			t.Errorf("an urgent channel has %d bytes in advance", urgent.advance)
		}
		channels[0].Abort("test")
		channels[1].Abort("test")
		time.Sleep(10 * time.Second) // nobody consumes: each channel has sent what it may
		if s := l.b.Link("a").State(); !s.Up || inUse(l.b.Link("a")).id != before {
			t.Errorf("the link is up: %v, by the same connections: %v; %s", s.Up, inUse(l.b.Link("a")).id == before, s.Why)
		}
		for i, ch := range channels[2:] {
			if over := beyond(ch); over > 0 {
				t.Errorf("channel %d has sent %d bytes beyond what it was granted and has in advance", i, over)
			}
		}
		for _, ch := range channels {
			ch.Abort("test")
		}
		time.Sleep(time.Second)
		if n := advanced(link); n != 0 {
			t.Errorf("%d bytes of advance are left in use", n)
		}
	})
}

// beyond is what a channel has sent that neither the peer's window nor its advance is for.
func beyond(ch *Channel) int64 {
	ch.link.mu.Lock()
	defer ch.link.mu.Unlock()
	return ch.out.unacked - ch.out.granted - ch.advance
}

// synctestSend sends on ch whatever it takes, until the test ends.
func synctestSend(t *testing.T, ch *Channel) {
	go func() {
		for {
			if _, err := ch.Send(t.Context(), make([]byte, 16<<10)); err != nil {
				return
			}
		}
	}()
	synctest.Wait()
}

func advanced(l *Link) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.advanced
}
