package gateway_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
)

// TestForwardKnownStream: what has gone through a forward before costs little the
// second time, behind something else as well, whether or not it is looked into.
func TestForwardKnownStream(t *testing.T) {
	t.Parallel()
	a, b, _ := newPair(t, hvtest.Guest{})
	r := rand.New(rand.NewPCG(1, 31))
	stream := make([]byte, 4<<20)
	for i := range stream {
		stream[i] = byte(r.Uint32())
	}
	forward := func(kind string) gateway.Forward {
		t.Helper()
		all, err := a.g.Forwards(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.Name == kind {
				return f
			}
		}
		t.Fatalf("no forward %s", kind)
		return gateway.Forward{}
	}
	for i, kind := range []string{"auto", "tcp"} {
		listen, out := forwardTo(t, a, b, kind)
		carried := int64(0) // bytes on the wire of the connections before
		for j, before := range []string{"", "HELO something else\r\n"} {
			c := dialForward(t, listen)
			sent := append([]byte(before), stream...)
			done := make(chan error, 1) // one error
			go func() {
				_, err := c.Write(sent)
				c.CloseWrite()
				done <- err
			}()
			far := accept(t, out)
			got, err := io.ReadAll(far)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%s: %d bytes came of %d: %v", kind, len(got), len(sent), err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if codec := forward(kind).Codec; codec == "" {
				t.Errorf("%s: while a stream crosses no codec is told", kind)
			}
			far.Close()
			c.Close()
			awaitConns(t, a, kind, 0)
			if codec := forward(kind).Codec; codec != "" {
				t.Errorf("%s: when nothing crosses its codec is %q", kind, codec)
			}
			first := i == 0 && j == 0
			used := forward(kind).Wire - carried
			carried += used
			if first != (used > int64(len(stream))*9/10) || !first && used > int64(len(stream))/10 {
				t.Errorf("%s, behind %q: %d bytes on the wire for %d", kind, before, used, len(sent))
			}
		}
	}
}
