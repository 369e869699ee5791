package gateway_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// tcpForward makes a forward from a to a TCP listener at b and one connection
// through it.
func tcpForward(t *testing.T, a *site) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := a.g.AddForward(t.Context(), gateway.Forward{
		Name: "tcp", Listen: "tcp:127.0.0.1:0", To: "b", Target: "tcp:" + ln.Addr().String(), Kind: "tcp",
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", f.Listen[len("tcp:"):])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	hello := make([]byte, 5)
	if _, err := io.ReadFull(d, hello); err != nil || string(hello) != "hello" {
		t.Fatalf("%q, %v", hello, err)
	}
	d.SetDeadline(time.Now().Add(2 * time.Minute))
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// A connection that breaks at one site breaks at the other: nobody takes it for
// the end of the stream.
func TestBrokenConnectionIsNotAnEnd(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	near, far := tcpForward(t, a)
	near.SetLinger(0)
	near.Close() // RST
	if n, err := far.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the far end reads %d bytes, %v; want a reset", n, err)
	}
	noChannels(t, 0, a, b)
}

// A target that has said all it wants to say, and reads no more, cannot hold a
// forward that is removed.
func TestStuckTargetIsCutOff(t *testing.T) { // alone: it counts goroutines
	a, b, _ := newPair(t, hvtest.Guest{})
	near, far := tcpForward(t, a)
	if err := far.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(make([]byte, 10)); !errors.Is(err, io.EOF) {
		t.Errorf("the near end reads %d bytes, %v; want the end", n, err)
	}
	fill := make([]byte, 1<<20)
	near.SetWriteDeadline(time.Now().Add(time.Second))
	for { // until no buffer on the way takes more
		if _, err := near.Write(fill); err != nil {
			break
		}
	}
	removed := make(chan error, 1)
	go func() { removed <- a.g.RemoveForward(t.Context(), "tcp") }()
	select {
	case err := <-removed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the forward is not removed")
	}
	noChannels(t, 0, a, b)
	until(t, "the connection at b is let go", func() bool { return countGoroutines("(*Gateway).serveForwarded") == 0 })
}

// What is closed in good order arrives whole, in both directions.
func TestHalfCloses(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	near, far := tcpForward(t, a)
	io.WriteString(near, "to the end")
	near.CloseWrite()
	if got, err := io.ReadAll(far); err != nil || string(got) != "to the end" {
		t.Errorf("far: %q, %v", got, err)
	}
	io.WriteString(far, "and back")
	far.Close()
	if got, err := io.ReadAll(near); err != nil || string(got) != "and back" {
		t.Errorf("near: %q, %v", got, err)
	}
	noChannels(t, 0, a, b)
}
