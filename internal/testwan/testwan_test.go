package testwan

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// pair opens two sockets at two sites.
func pair(t *testing.T, w *WAN) (a, b net.PacketConn) {
	t.Helper()
	a, err := w.Site("192.0.2.1").Listen(":1")
	if err != nil {
		t.Fatal(err)
	}
	b, err = w.Site("192.0.2.2").Listen(":2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// count reads packets until there are none for a second.
func count(t *testing.T, s net.PacketConn) (n int, sorted bool, last time.Time) {
	t.Helper()
	b := make([]byte, 2000)
	sorted = true
	prev := -1
	for {
		if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		m, _, err := s.ReadFrom(b)
		if err != nil {
			return n, sorted, last
		}
		n++
		i := int(b[0])<<8 | int(b[1])
		sorted = sorted && i >= prev
		prev, last = i, time.Now()
		_ = m
	}
}

func TestLines(t *testing.T) {
	const packets = 1000
	for _, tt := range []struct {
		name     string
		line     Line
		least    int // packets that arrive
		most     int
		sorted   bool
		min, max time.Duration // when the last arrives
	}{
		{"perfect", Line{}, packets, packets, true, 0, 0},
		{"delay", Line{Delay: 40 * time.Millisecond}, packets, packets, true, 40 * time.Millisecond, 40 * time.Millisecond},
		{"rate", Line{Rate: 1_042_000, Queue: 2 << 20}, packets, packets, true, time.Second - time.Millisecond, time.Second + time.Millisecond},
		{"queue", Line{Rate: 1_042_000, Queue: 104_200}, 100, 100, true, 90 * time.Millisecond, 101 * time.Millisecond},
		{"loss", Line{Loss: 0.1}, 850, 950, true, 0, 0},
		{"duplicates", Line{Duplicate: 0.1}, 1050, 1150, true, 0, 0},
		{"reorder", Line{Delay: time.Millisecond, Reorder: 0.1, Jitter: time.Millisecond}, packets, packets, false, 2 * time.Millisecond, 2 * time.Millisecond},
		{"mtu", Line{MTU: 999}, 0, 0, true, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(tt.line, 1)
				defer w.Close()
				a, b := pair(t, w)
				start := time.Now()
				for i := range packets {
					p := make([]byte, 1000)
					p[0], p[1] = byte(i>>8), byte(i)
					if _, err := a.WriteTo(p, b.LocalAddr()); err != nil {
						t.Fatal(err)
					}
				}
				n, sorted, last := count(t, b)
				if n < tt.least || n > tt.most || sorted != tt.sorted {
					t.Errorf("got %d packets, sorted %v; want %d to %d, %v", n, sorted, tt.least, tt.most, tt.sorted)
				}
				if d := last.Sub(start); n > 0 && (d < tt.min || d > tt.max) {
					t.Errorf("the last came after %v, want %v to %v", d, tt.min, tt.max)
				}
			})
		})
	}
}

func TestCutHealBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Line{Delay: time.Millisecond}, 1)
		defer w.Close()
		a, b := pair(t, w)
		send := func() int {
			_, _ = a.WriteTo([]byte{0, 0}, b.LocalAddr())
			n, _, _ := count(t, b)
			return n
		}
		if n := send(); n != 1 {
			t.Errorf("before: %d packets", n)
		}
		w.Cut()
		if n := send(); n != 0 {
			t.Errorf("cut: %d packets", n)
		}
		w.Heal()
		if n := send(); n != 1 {
			t.Errorf("healed: %d packets", n)
		}
		w.Block(b.LocalAddr().(*net.UDPAddr).AddrPort())
		if n := send(); n != 0 {
			t.Errorf("blocked: %d packets", n)
		}
		if s := w.Stats(); s.Sent != 4 || s.Delivered != 2 || s.Cut != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestRebind: a socket behind a NAT that has forgotten it is seen elsewhere, and
// answers find it there only.
func TestRebind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Line{Delay: time.Millisecond}, 1)
		defer w.Close()
		_, b := pair(t, w)
		d, to, err := w.Site("192.0.2.1").Dial(t.Context(), "", "192.0.2.2:2")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		seen := func() net.Addr {
			t.Helper()
			if _, err := d.WriteTo([]byte{0, 1}, to); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 10)
			_, from, err := b.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			return from
		}
		before := seen()
		w.Rebind(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.7"))
		after := seen()
		if before.String() == after.String() || after.(*net.UDPAddr).IP.String() != "198.51.100.7" {
			t.Errorf("seen as %v and then as %v", before, after)
		}
		for _, to := range []net.Addr{before, after} {
			if _, err := b.WriteTo([]byte{0, 2}, to); err != nil {
				t.Fatal(err)
			}
		}
		if n, _, _ := count(t, d); n != 1 {
			t.Errorf("%d of 2 answers came, want that to the new address", n)
		}
	})
}
