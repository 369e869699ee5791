package tunnel

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// expressEnd is a user of express datagrams: it vouches for those that begin
// with the peer's name.
type expressEnd struct {
	peer string
	mu   sync.Mutex
	got  [][]byte
}

func (e *expressEnd) take(b []byte, size int) (site string) {
	for d := range slices.Chunk(b, size) {
		if len(d) > 1 && d[0] == 0x1c && string(d[1]) == e.peer {
			e.mu.Lock()
			e.got = append(e.got, bytes.Clone(d))
			e.mu.Unlock()
			site = e.peer
		}
	}
	return site
}

func (e *expressEnd) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.got)
}

// expressPair is two nodes on the loopback whose link has express datagrams.
func expressPair(t testing.TB, change func(*Config)) (a, b running, ends map[string]*expressEnd) {
	ends = map[string]*expressEnd{"a": {peer: "b"}, "b": {peer: "a"}}
	a, b = onLoopback(t, func(c *Config) {
		c.OnExpress = ends[c.Site].take
		if change != nil {
			change(c)
		}
	})
	a.Link("b").UseExpress()
	b.Link("a").UseExpress()
	return a, b, ends
}

func soon(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("not in time: " + what)
		}
	}
}

// batch is datagrams from a site, n of size bytes and one of last.
func batch(from string, n, size, last int) []byte {
	b := make([]byte, n*size+last)
	for i := 0; i < len(b); i += size {
		b[i], b[i+1] = 0x1c, from[0]
	}
	return b
}

// TestExpress: datagrams pass both ways over the listening port beside QUIC, as
// they were, and the end that listens answers to who has proved itself.
func TestExpress(t *testing.T) {
	a, b, ends := expressPair(t, nil)
	la, lb := a.Link("b"), b.Link("a")
	soon(t, "b is up", func() bool { return lb.State().Up })
	if err := lb.SendExpress(batch("b", 1, 100, 0), 100); !errors.Is(err, ErrNoExpress) {
		t.Errorf("before the dialer has said anything: %v", err)
	}
	soon(t, "a socket", func() bool { return la.ExpressReady() == nil })

	stranger, err := net.Dial("udp", la.State().Address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Write(batch("x", 1, 500, 0)); err != nil {
		t.Fatal(err)
	}

	const size, last = 1400, 77
	want := 0
	soon(t, "all sizes at b", func() bool { // the loopback drops nothing, but who knows
		if err := la.SendExpress(batch("a", 40, size, last), size); err != nil {
			t.Fatal(err)
		}
		want += 41
		return ends["b"].count() >= 41
	})
	ends["b"].mu.Lock()
	for i, d := range ends["b"].got {
		if len(d) != size && len(d) != last {
			t.Errorf("datagram %d has %d bytes", i, len(d))
		}
	}
	ends["b"].mu.Unlock()
	soon(t, "the way back", func() bool {
		err := lb.SendExpress(batch("b", 2, size, 0), size)
		return err == nil && ends["a"].count() > 0
	})

	from, to := openPair(t, a, b, Spec{}) // and QUIC is still there
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := transfer(ctx, from, to, 20, 100<<10); err != nil {
		t.Fatal(err)
	}
	if sent := la.State().ByClass[1].Sent; sent < int64(want/41*(40*size+last)) {
		t.Errorf("%d bytes counted as Layer 2", sent)
	}
}

// TestExpressSecret: both ends have the same secret for the same connection, and
// another for another label.
func TestExpressSecret(t *testing.T) {
	a, b, _ := expressPair(t, nil)
	sa, err := a.Link("b").ExportSecret("EXPORTER-test")
	if err != nil {
		t.Fatal(err)
	}
	soon(t, "b is up", func() bool { return b.Link("a").State().Up })
	sb, err := b.Link("a").ExportSecret("EXPORTER-test")
	if err != nil || sa != sb || sa == ([32]byte{}) {
		t.Errorf("%x, %x, %v", sa, sb, err)
	}
	if so, _ := b.Link("a").ExportSecret("EXPORTER-other"); so == sb {
		t.Error("another label has the same secret")
	}
}

// TestExpressPort: a second gateway does not get the port, although two of our
// own sockets share it.
func TestExpressPort(t *testing.T) {
	_, b, _ := expressPair(t, nil)
	addr := b.cfg.Listen
	soon(t, "the port is shared", func() bool {
		pc, err := net.ListenPacket("udp", addr)
		if err == nil {
			pc.Close()
		}
		return errors.Is(err, unix.EADDRINUSE)
	})
}

// TestNoExpressOverTCP says so.
func TestNoExpressOverTCP(t *testing.T) {
	a, _, _ := expressPair(t, func(c *Config) { c.Carrier = TCP })
	if err := a.Link("b").ExpressReady(); !errors.Is(err, ErrNoExpress) {
		t.Errorf("over TCP: %v", err)
	}
	if _, err := a.Link("b").ExportSecret("EXPORTER-test"); !errors.Is(err, ErrNoExpress) {
		t.Errorf("over TCP: %v", err)
	}
}

// TestExpressUnderTheCap: express datagrams wait for the link's cap, and a batch
// leaves in parts.
func TestExpressUnderTheCap(t *testing.T) {
	const rate = 1_000_000
	a, _, _ := expressPair(t, func(c *Config) { c.Rate = rate })
	l := a.Link("b")
	soon(t, "a socket", func() bool { return l.ExpressReady() == nil })
	start := time.Now()
	const n = 40
	for range n {
		if err := l.SendExpress(batch("a", 44, 1400, 0), 1400); err != nil {
			t.Fatal(err)
		}
	}
	sent := float64(n * 44 * 1400)
	if took := time.Since(start).Seconds(); sent/took > 2*rate { // a burst is part of any cap
		t.Errorf("%.0f bytes in %.3f s, under a cap of %d a second", sent, took, rate)
	}
}
