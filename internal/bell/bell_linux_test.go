package bell

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe is a pipe that the runtime does not watch.
func pipe(t *testing.T) (from, to int) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func TestBell(t *testing.T) {
	from, to := pipe(t)
	b, err := New(from, unix.EPOLLIN)
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	rung := make(chan error)
	for i := range 1000 {
		late := i%2 == 0 // what comes before the wait, and during it
		if late {
			go func() { rung <- b.Wait() }()
		}
		if _, err := unix.Write(to, one); err != nil {
			t.Fatal(err)
		}
		if !late {
			go func() { rung <- b.Wait() }()
		}
		if err := <-rung; err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(from, one); n != 1 || err != nil {
			t.Fatalf("rung, but %d bytes, %v", n, err)
		}
	}
	go func() { rung <- b.Wait() }()
	select {
	case err := <-rung:
		t.Fatalf("rung for nothing: %v", err)
	case <-time.After(50 * time.Millisecond): // so that Wait waits, and Close finds it there
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-rung; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := b.Wait(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestWaitMakesNoGarbage: it is called thousands of times a second.
func TestWaitMakesNoGarbage(t *testing.T) {
	_, to := pipe(t)
	b, err := New(to, unix.EPOLLOUT)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if n := testing.AllocsPerRun(100, func() {
		if err := b.Wait(); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for each wait", n)
	}
}
