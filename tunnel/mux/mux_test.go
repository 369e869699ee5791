package mux

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHead(t *testing.T) {
	for _, tt := range []struct {
		h    Head
		want string
	}{
		{Head{Open, 1, 1}, "0100000100000001"},
		{Head{Data, MaxBody, 0x01020304}, "0201000001020304"},
		{Head{Close, 12, 0}, "0700000c00000000"},
	} {
		enc := tt.h.Append(nil)
		if got := hex.EncodeToString(enc); got != tt.want {
			t.Errorf("%+v is written %s, want %s", tt.h, got, tt.want)
		}
		for i := range enc {
			if _, _, err := ParseHead(enc[:i]); !errors.Is(err, ErrShort) {
				t.Errorf("%+v cut at %d: %v", tt.h, i, err)
			}
		}
	}
	for _, h := range []Head{{0, 0, 0}, {Pong + 1, 8, 0}, {Data, MaxBody + 1, 1}, {Data, 0, 1}, {Data, 1, 0}, {Ping, 8, 1}, {Credit, 5, 1}, {Datagram, MaxDatagram + 1, 0}} {
		if _, _, err := ParseHead(h.Append(nil)); !errors.Is(err, errFormat) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	for k := Open; k <= Pong; k++ {
		f.Add(Head{k, 8, 1}.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHead(b)
		if err == nil && !bytes.Equal(h.Append(nil), b[:n]) {
			t.Errorf("%x parses, but is written %x", b[:n], h.Append(nil))
		}
	})
}

// pair is two ends over a pipe.
func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	x, y := net.Pipe()
	a, b = New(x, true), New(y, false)
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, c := range []*Conn{a, b} {
			wg.Go(func() { c.Close(0, "end of the test") })
		}
		wg.Wait()
	})
	return a, b
}

// open opens a stream from one end to the other.
func open(t testing.TB, from, to *Conn, way Way) (out, in *Stream) {
	t.Helper()
	out, err := from.OpenStream(t.Context(), way)
	if err != nil {
		t.Fatal(err)
	}
	if in, err = to.AcceptStream(t.Context(), way); err != nil {
		t.Fatal(err)
	}
	return out, in
}

// TestStreams sends on many streams both ways at once.
func TestStreams(t *testing.T) {
	a, b := pair(t)
	var wg sync.WaitGroup
	for i := range 12 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		out, in := open(t, from, to, Way(1+i%2))
		r := rand.New(rand.NewPCG(1, uint64(i)))
		data := make([]byte, 3*MaxBody+r.IntN(1000))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		wg.Go(func() {
			for rest := data; len(rest) > 0; {
				n, err := out.Write(rest[:min(len(rest), 1+r.IntN(100_000))])
				if err != nil {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				rest = rest[n:]
			}
			out.Close()
		})
		wg.Go(func() {
			got, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("stream %d: %d bytes, %v; want %d", i, len(got), err, len(data))
			}
			in.Close()
		})
	}
	wg.Wait()
	for name, c := range map[string]*Conn{"a": a, "b": b} {
		c.mu.Lock()
		if len(c.streams) > 2 { // a Fin may still be on its way
			t.Errorf("%s knows %d streams that are over", name, len(c.streams))
		}
		c.mu.Unlock()
	}
}

// TestStoppedReader: a stream whose reader has gone holds up nobody.
func TestStoppedReader(t *testing.T) {
	a, b := pair(t)
	stuck, gone := open(t, a, b, BothWays)
	out, in := open(t, a, b, BothWays)
	stuck.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := stuck.Write(make([]byte, 10*StreamWindow))
	if n != StreamWindow || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d, %v; want %d and a timeout", n, err, StreamWindow)
	}
	if _, err := out.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	in.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := in.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading nothing: %v", err)
	}
	gone.StopReading()
	if _, err := gone.Read(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading after it was given up: %v", err)
	}
	gone.Reset()
	stuck.SetWriteDeadline(time.Time{})
	if _, err := stuck.Write(got); !errors.Is(err, ErrReset) {
		t.Errorf("writing after a reset: %v", err)
	}
}

func TestDatagrams(t *testing.T) {
	a, b := pair(t)
	for i := range maxDatagrams + 10 {
		if err := a.SendDatagram(fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	out, in := open(t, a, b, BothWays) // has come, and so have all before it
	_, _ = out, in
	if got, err := b.ReceiveDatagram(t.Context()); err != nil || string(got) != "10" {
		t.Errorf("the first of those that are kept: %q, %v", got, err)
	}
	if err := a.SendDatagram(make([]byte, MaxDatagram+1)); err == nil {
		t.Error("a datagram that is too large")
	}
}

// TestClose: both ends know why, and what waits is woken.
func TestClose(t *testing.T) {
	a, b := pair(t)
	_, in := open(t, a, b, OneWay)
	failed := make(chan error, 3) // one for each that waits
	go func() { _, err := in.Read(make([]byte, 1)); failed <- err }()
	go func() { _, err := b.AcceptStream(t.Context(), BothWays); failed <- err }()
	go func() { _, err := b.ReceiveDatagram(t.Context()); failed <- err }()
	a.Close(7, "enough")
	for range 3 {
		err := <-failed
		var e *CloseError
		if !errors.As(err, &e) || e.Code != 7 || e.Text != "enough" || !e.Remote || !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	var e *CloseError
	if !errors.As(context.Cause(a.Context()), &e) || e.Remote {
		t.Errorf("at the end that closed: %v", context.Cause(a.Context()))
	}
	if _, err := a.OpenStream(t.Context(), OneWay); !errors.Is(err, net.ErrClosed) {
		t.Errorf("opening afterwards: %v", err)
	}
}

// TestIdle: a peer that is silent is noticed, also in the middle of a write; one
// that only answers pings is not taken for dead.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		time.Sleep(10 * IdleTimeout)
		if a.Context().Err() != nil || b.Context().Err() != nil {
			t.Fatalf("idle ends: %v, %v", context.Cause(a.Context()), context.Cause(b.Context()))
		}
		if rtt, least := a.RTT(); rtt != 0 || least != 0 {
			t.Errorf("the round trip of a pipe: %v, %v", rtt, least)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // far is never read
		defer far.Close()
		c := New(near, true)
		began := time.Now()
		go func() { _, _ = c.OpenStream(t.Context(), OneWay) }()
		<-c.Context().Done()
		if took := time.Since(began); took != IdleTimeout || !errors.Is(context.Cause(c.Context()), ErrIdle) {
			t.Errorf("after %v: %v", took, context.Cause(c.Context()))
		}
		c.Close(0, "")
	})
}

// TestHostile: what breaks the protocol ends the connection, with words.
func TestHostile(t *testing.T) {
	opens := func(n int) (b []byte) {
		for i := range n {
			b = append(Head{Open, 1, uint32(2*i + 1)}.Append(b), byte(BothWays))
		}
		return b
	}
	flood := opens(1)
	for range 2 {
		flood = append(Head{Data, MaxBody, 1}.Append(flood), make([]byte, MaxBody)...)
	}
	for name, b := range map[string][]byte{
		"HTTP":            []byte("GET / HTTP/1.1\r\n\r\n"),
		"kind":            Head{99, 0, 0}.Append(nil),
		"way":             append(Head{Open, 1, 1}.Append(nil), 9),
		"not its number":  append(Head{Open, 1, 2}.Append(nil), 1),
		"twice":           append(opens(1), opens(1)...),
		"many":            opens(maxWaiting + 1),
		"beyond credit":   flood,
		"never opened":    append(Head{Data, 1, 5}.Append(nil), 0),
		"too much credit": append(Head{Credit, 4, 1}.Append(opens(1)), 0xff, 0xff, 0xff, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			c := New(near, false)
			defer c.Close(0, "")
			if _, err := far.Write(b); err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Fatal(err)
			}
			<-c.Context().Done()
			if err := context.Cause(c.Context()); !errors.Is(err, errFormat) && !errors.Is(err, errStreams) {
				t.Errorf("ended by %v", err)
			}
		})
	}
}

// FuzzConn: whatever comes, nothing panics and nothing is left.
func FuzzConn(f *testing.F) {
	f.Add(append(Head{Data, 3, 1}.Append(append(Head{Open, 1, 1}.Append(nil), 2)), "abc"...))
	f.Add((&CloseError{Code: 1, Text: "x"}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		c := New(near, false)
		go func() {
			for {
				s, err := c.AcceptStream(context.Background(), OneWay)
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(io.Discard, s) }()
			}
		}()
		_, _ = far.Write(b)
		far.Close()
		<-c.Context().Done()
		c.Close(0, "")
	})
}
