package gateway

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestHangUp: a hypervisor hears at once that its connection has ended, also when it
// waits for us to read, and what it had written by then is not lost.
func TestHangUp(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	type ended struct {
		wrote int64
		err   error
	}
	over := make(chan ended)
	full := make(chan struct{})
	go func() {
		var e ended
		part := bytes.Repeat([]byte("memory.."), 512)
		for i := 0; e.err == nil; i++ {
			if i == 8 {
				close(full)
			}
			var n int
			n, e.err = far.Write(part)
			e.wrote += int64(n)
		}
		over <- e
	}()
	<-full
	time.Sleep(20 * time.Millisecond) // by then the other end waits, or soon does
	hangUp(near)
	var e ended
	select {
	case e = <-over:
	case <-time.After(10 * time.Second):
		t.Fatal("the other end goes on")
	}
	got, err := io.ReadAll(near)
	if err != nil || int64(len(got)) != e.wrote {
		t.Errorf("%d of %d bytes can be read, error %v", len(got), e.wrote, err)
	}
}
