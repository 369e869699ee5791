package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel/frame"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

func TestRawConns(t *testing.T) {
	t.Parallel()
	inLab(t, testwan.Line{Delay: 5 * time.Millisecond}, options{}, func(t *testing.T, l *lab) {
		l.up()
		for _, way := range []struct{ from, to running }{{l.a, l.b}, {l.b, l.a}} {
			site := way.to.cfg.Site
			c, err := way.from.Link(site).Dial(t.Context(), 42)
			if err != nil {
				t.Fatal(err)
			}
			d, err := way.to.AcceptConn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d.Proto() != 42 || d.Site() != way.from.cfg.Site || len(d.ConnectionState().PeerCertificates) == 0 {
				t.Errorf("accepted proto %d of %s", d.Proto(), d.Site())
			}
			go func() {
				_, _ = c.Write(bytes.Repeat([]byte("x"), 100_000))
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(d)
			if err != nil || len(got) != 100_000 {
				t.Errorf("read %d bytes: %v", len(got), err)
			}
			if _, err := d.Write([]byte("bye")); err != nil {
				t.Error(err)
			}
			_ = d.Close()
			if got, err := io.ReadAll(c); err != nil || string(got) != "bye" {
				t.Errorf("read %q: %v", got, err)
			}
			_ = c.Close()
		}
		c, err := l.a.Link("b").Dial(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		l.wan.Cut()
		if _, err := io.ReadAll(c); err == nil {
			t.Error("the connection outlived its line")
		}
	})
}

// TestRawBeside: raw connections beside the datagrams, of which none is held up by
// another whose end is not read.
func TestRawBeside(t *testing.T) {
	t.Parallel()
	inLab(t, testwan.Line{Delay: 5 * time.Millisecond}, options{}, func(t *testing.T, l *lab) {
		if _, err := l.a.Link("b").DialBeside(t.Context(), 7); !errors.Is(err, ErrDown) {
			t.Errorf("before the link is up: %v", err)
		}
		l.up()
		time.Sleep(time.Second) // the connection for datagrams comes after the first
		before := l.a.Link("b").State().ByClass[shaper.L2].Sent
		var far [2]*Conn
		for i := range far {
			c, err := l.a.Link("b").DialBeside(t.Context(), byte(40+i))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = c.Write(bytes.Repeat([]byte("x"), 100_000))
				_ = c.CloseWrite()
			}()
			if far[i], err = l.b.AcceptConn(t.Context()); err != nil || far[i].Proto() != byte(40+i) {
				t.Fatalf("accepted proto %d: %v", far[i].Proto(), err)
			}
		}
		for _, c := range []*Conn{far[1], far[0]} {
			if got, err := io.ReadAll(c); err != nil || len(got) != 100_000 {
				t.Errorf("read %d bytes: %v", len(got), err)
			}
			_ = c.Close()
		}
		if sent := l.a.Link("b").State().ByClass[shaper.L2].Sent - before; sent < 200_000 {
			t.Errorf("%d bytes were sent in the class of Layer 2", sent)
		}
		if p := l.a.Link("b").State().Paths; len(p) != 1 || !p[0].Urgent {
			t.Errorf("paths %+v", p)
		}
	})
}

func TestDatagrams(t *testing.T) {
	t.Parallel()
	var got [256]atomic.Int64
	count := func(c *Config) {
		c.OnDatagram = func(site string, kind byte, b []byte) {
			if site == "a" && bytes.Equal(b, bytes.Repeat([]byte{kind}, len(b))) {
				got[kind].Store(int64(len(b)))
			}
		}
	}
	inLab(t, testwan.Line{Delay: 5 * time.Millisecond}, options{b: count}, func(t *testing.T, l *lab) {
		l.up()
		time.Sleep(time.Second)
		link := l.a.Link("b")
		most := link.MaxDatagram()
		for kind := range 100 {
			if err := link.SendDatagram(byte(kind), bytes.Repeat([]byte{byte(kind)}, most-kind)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for kind := range 100 {
			if n := got[kind].Load(); n != int64(most-kind) {
				t.Errorf("kind %d: got %d bytes, want %d", kind, n, most-kind)
			}
		}
		if s := link.State(); s.Drops != (Drops{}) || s.ByClass[1].Sent < int64(100*(most-100)) {
			t.Errorf("%+v", s)
		}
		// More than the line takes: the oldest go, and nobody waits.
		link.SetRate(100_000)
		began := time.Now()
		for range 5000 {
			if err := link.SendDatagram(1, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("waited %v", d)
		}
		if s := link.State(); s.Drops.SendQueue < 4000 {
			t.Errorf("dropped %+v", s.Drops)
		}
		link.SetRate(0)
		time.Sleep(time.Second)
		if _, err := l.b.Link("a").Open(t.Context(), Spec{Header: make([]byte, frame.MaxHeader+1)}); err == nil {
			t.Error("a header of any length is accepted")
		}
	})
}

func TestGrowth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		line testwan.Line
		want int // bulk connections after 5 s of backlog
	}{
		{"clean", testwan.Line{Delay: 25 * time.Millisecond, Rate: 500_000, Queue: 50_000}, 4},
		{"lossy", testwan.Line{Delay: 50 * time.Millisecond, Rate: 62_500_000, Loss: 0.02}, 16},
		{"near", testwan.Line{Delay: time.Millisecond, Rate: 500_000, Loss: 0.002}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stock := func(c *Config) { c.NewReno = true }
			inLab(t, tt.line, options{a: stock, b: stock}, func(t *testing.T, l *lab) {
				l.up()
				from, to := l.open(Spec{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				flood(ctx, from, to, 1<<20)
				time.Sleep(5 * time.Second)
				s := l.a.Link("b").State()
				t.Logf("%d conns, goodput %d", s.Conns, s.Goodput)
				if n := s.Conns - 2; n != tt.want {
					t.Errorf("%d bulk connections, want %d", n, tt.want)
				}
			})
		})
	}
}

func TestIDSet(t *testing.T) {
	var s idSet
	in := map[uint64]bool{}
	add := func(id uint64) { s.add(id); in[id] = true }
	for _, id := range []uint64{1, 5, 3, 2, 9, 6, 4, 11, 7, 7} {
		add(id)
	}
	for id := range uint64(15) {
		if s.has(id) != in[id] {
			t.Errorf("has %d: %v", id, s.has(id))
		}
	}
	if len(s.ranges) != 2 {
		t.Errorf("ranges %v", s.ranges)
	}
	for id := uint64(21); id < 10000; id += 4 {
		s.add(id)
	}
	if len(s.ranges) > maxIDRanges || !s.has(9997) || s.has(9999) {
		t.Errorf("%d ranges", len(s.ranges))
	}
}
