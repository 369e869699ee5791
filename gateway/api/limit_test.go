package api

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
)

func TestLimit(t *testing.T) {
	inner, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ln := limit(inner, 2)
	accepted := make(chan net.Conn) // no room: Accept's one at a time
	go func() {
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("accept: %v", err)
				}
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("unix", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	if len(ln.places) != 2 {
		t.Errorf("%d places taken", len(ln.places))
	}
	select {
	case <-accepted:
		t.Error("a third connection is accepted beside two")
	default:
	}
	first.Close()
	first.Close() // gives one place back, not two
	third := <-accepted
	if len(ln.places) != 2 {
		t.Errorf("%d places taken after one left and one came", len(ln.places))
	}
	ln.Close() // while Accept waits for a place
	if _, open := <-accepted; open {
		t.Error("accepts after Close")
	}
	second.Close()
	third.Close()
	if len(ln.places) != 0 {
		t.Errorf("%d places taken at the end", len(ln.places))
	}
}
