package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// forwardTo makes a forward from a to a listener at b, and returns where to
// connect and the listener.
func forwardTo(t *testing.T, a, b *site, kind string) (listen string, out net.Listener) {
	t.Helper()
	target := filepath.Join(b.run, kind+".sock")
	out, err := net.Listen("unix", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	listen = filepath.Join(a.run, kind+".sock")
	_, err = a.g.AddForward(t.Context(), gateway.Forward{Name: kind, Listen: "unix:" + listen, To: "b", Target: "unix:" + target, Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	return listen, out
}

// echo answers every connection with what it says, until the listener closes.
func echo(t *testing.T, ln net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}

func dialForward(t *testing.T, listen string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// say writes a word and expects it back.
func say(t *testing.T, c net.Conn, word string) {
	t.Helper()
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != word {
		t.Fatalf("said %q, heard %q, %v", word, got, err)
	}
}

// TestForwardTellsWhy: who has a connection refused looks at the forward.
func TestForwardTellsWhy(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	listen, out := forwardTo(t, a, b, "tcp")
	problem := func() string {
		f, err := a.g.Forwards(t.Context())
		if err != nil || len(f) != 1 {
			t.Fatal(f, err)
		}
		return f[0].Problem
	}
	out.Close() // and with it its file
	c := dialForward(t, listen)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Fatal("an answer from nobody")
	}
	until(t, "the problem is shown", func() bool {
		got := problem()
		return strings.HasPrefix(got, "the last connection: site b: ") && strings.Contains(got, "tcp.sock: connect: no such file")
	})
	again, err := net.Listen("unix", filepath.Join(b.run, "tcp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	echo(t, again)
	c = dialForward(t, listen)
	say(t, c, "hello")
	c.Close()
	until(t, "the problem is gone", func() bool { return problem() == "" })
}

// TestForwardTellsOfItsLimit: one connection more than a forward takes is refused,
// and the forward says so.
func TestForwardTellsOfItsLimit(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	listen, out := forwardTo(t, a, b, "tcp")
	echo(t, out)
	for range gateway.MaxForwardConns {
		dialForward(t, listen)
	}
	awaitConns(t, a, "tcp", gateway.MaxForwardConns)
	if _, err := dialForward(t, listen).Read(make([]byte, 1)); err == nil {
		t.Fatal("an answer from nobody")
	}
	f, err := a.g.Forwards(t.Context())
	if err != nil || len(f) != 1 || !strings.Contains(f[0].Problem, "the last connection: refused, because 256 are open") {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestForwardManyConnections: one connection that stays open, such as that of a
// management program to libvirt, must not use the forward up for those that
// come and go beside it.
func TestForwardManyConnections(t *testing.T) {
	t.Parallel()
	const word = "a word that is no migration stream's first"
	a, b, _ := newPair(t, hvtest.Guest{})
	for _, kind := range []string{"tcp", "auto"} {
		t.Run(kind, func(t *testing.T) {
			listen, out := forwardTo(t, a, b, kind)
			echo(t, out)
			stays := dialForward(t, listen)
			say(t, stays, "first word of the one that stays")
			for range 300 { // more than one session may have
				c := dialForward(t, listen)
				say(t, c, word)
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := stays.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
				t.Fatal(err)
			}
			say(t, stays, "last word")
			fs, err := a.g.Forwards(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range fs {
				if f.Name == kind && (f.Total != 301 || f.Logical < 300*int64(len(word))) {
					t.Errorf("it counts %d connections and %d bytes", f.Total, f.Logical)
				}
			}
		})
	}
}

// TestForwardShortWord: a client that says less than tells what it speaks, and waits
// for an answer, is heard at the other end.
func TestForwardShortWord(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	listen, out := forwardTo(t, a, b, "auto")
	echo(t, out)
	say(t, dialForward(t, listen), "QE")
}

// TestForwardSecondMigration: QEMU 7.2 takes the first connection for main, at
// the second migration through a forward as at the first, whatever else is open
// there.
func TestForwardSecondMigration(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	listen, out := forwardTo(t, a, b, "auto")
	other := dialForward(t, listen)
	if _, err := io.WriteString(other, "something else that stays open, and says more than 64 bytes at once"); err != nil {
		t.Fatal(err)
	}
	accept(t, out)
	mainHello := "QEVM\x00\x00\x00\x03"
	multifdHello := "\x11\x22\x33\x44\x00\x00\x00\x01" + string(make([]byte, 56))

	first := dialForward(t, listen)
	if _, err := io.WriteString(first, mainHello); err != nil {
		t.Fatal(err)
	}
	accept(t, out).Close()
	first.CloseWrite()
	if _, err := io.Copy(io.Discard, first); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	awaitConns(t, a, "auto", 1)

	multifd := dialForward(t, listen)
	if _, err := io.WriteString(multifd, multifdHello); err != nil {
		t.Fatal(err)
	}
	awaitConns(t, a, "auto", 2)
	if _, err := io.WriteString(dialForward(t, listen), mainHello); err != nil {
		t.Fatal(err)
	}
	var got [8]byte
	if _, err := io.ReadFull(accept(t, out), got[:]); err != nil || string(got[:]) != mainHello {
		t.Errorf("the first connection of the second migration begins with %q, %v; want %q", got, err, mainHello)
	}
}

func accept(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	if err := ln.(*net.UnixListener).SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// awaitConns waits until a forward has n connections.
func awaitConns(t *testing.T, s *site, name string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for look := time.NewTicker(5 * time.Millisecond); ; {
		fs, err := s.g.Forwards(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fs {
			if f.Name == name && f.Conns == n {
				look.Stop()
				return
			}
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("forward %s does not come to %d connections: %+v", name, n, fs)
		}
	}
}
