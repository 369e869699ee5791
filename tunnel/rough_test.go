package tunnel

import (
	"net/netip"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
)

// TestRough is one transfer over a line that does all that lines do: it is away
// for a minute ten times, a fifth of its packets come out of order, some twice and
// some not at all, the site's address changes, and in the middle the MTU becomes
// 1280. Every byte arrives, in order.
func TestRough(t *testing.T) {
	t.Parallel()
	line := testwan.Line{
		Delay: 20 * time.Millisecond, Rate: 800_000, Loss: 0.001, Reorder: 0.2, Jitter: 8 * time.Millisecond, Duplicate: 0.05,
	}
	inLab(t, line, options{}, func(t *testing.T, l *lab) {
		l.up()
		from, to := l.open(Spec{})
		done := start(t.Context(), from, to, 1000, 64<<10)
		for i := range 10 {
			time.Sleep(1500 * time.Millisecond)
			switch i {
			case 3: // while it is up: the connections go on, or others take their place
				l.wan.Rebind(netip.MustParseAddr(ipA), netip.MustParseAddr("198.51.100.7"))
				time.Sleep(1500 * time.Millisecond)
			case 5: // without a word; 28 bytes are headers
				line.MTU = 1280 - 28
				l.wan.Set(line)
				time.Sleep(time.Second)
			case 8: // and during an outage
				l.wan.Rebind(netip.MustParseAddr(ipA), netip.MustParseAddr("198.51.100.8"))
			}
			if len(done) > 0 {
				t.Fatalf("the transfer is over before outage %d", i)
			}
			l.wan.Cut()
			time.Sleep(time.Minute)
			l.wan.Heal()
			healed := time.Now()
			l.up()
			if d := time.Since(healed); d > 10*time.Second {
				t.Errorf("outage %d: up again after %v", i, d)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		s := l.a.Link("b").State()
		t.Logf("%d bytes sent, %d of %d packets lost at the end, %d bytes came twice; wan %+v",
			s.WireSent, s.PacketsLost, s.PacketsSent, l.b.Link("a").State().Twice, l.wan.Stats())
		if l.wan.Stats().Big == 0 {
			t.Error("nothing was too big")
		}
	})
}
