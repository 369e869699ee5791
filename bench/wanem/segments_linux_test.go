package wanem

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSegments: writes of many packets cross as the packets that they are, and come
// to a receiver that knows nothing of it one by one; also with a kernel whose TAPs know
// nothing of them.
func TestSegments(t *testing.T) {
	t.Run("joined", func(t *testing.T) { segments(t, true) })
	t.Run("by themselves", func(t *testing.T) { segments(t, false) })
}

func segments(t *testing.T, joins bool) {
	const size, perWrite, writes = 1000, 14, 20
	r := newRigOf(t, joins, Profile{Rate: 200e6, Delay: 5 * time.Millisecond, Queue: 1 << 20})
	a, b := listen(t, r.a, "10.1.0.1:1000"), listen(t, r.b, "10.1.0.2:1000")
	option(t, b, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	to := netip.MustParseAddrPort("10.1.0.2:1000")
	buf := make([]byte, 65536)
	// One goes ahead: while the other end's MAC is asked for, the kernel keeps few.
	if _, err := a.WriteToUDPAddrPort([]byte("first"), to); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(buf); err != nil || n != 5 {
		t.Fatal(n, err)
	}
	option(t, a, unix.SOL_UDP, unix.UDP_SEGMENT, size)
	packet := func(i int) []byte { return bytes.Repeat([]byte{byte(i), byte(i >> 8)}, size/2) }
	for w := range writes {
		var all []byte
		for i := range perWrite {
			all = append(all, packet(w*perWrite+i)...)
		}
		if _, err := a.WriteToUDPAddrPort(all[:len(all)-100], to); err != nil {
			t.Fatal(err)
		}
	}
	for i := range writes * perWrite {
		want := packet(i)
		if i%perWrite == perWrite-1 {
			want = want[:size-100]
		}
		b.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := b.Read(buf)
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if !bytes.Equal(buf[:n], want) {
			t.Fatalf("packet %d has %d bytes, or others than were sent", i, n)
		}
	}
	got := r.counters(t).Sum(func(f Flow) bool { return f.Between(UDP, 1000) })
	if want := (Count{1 + writes*perWrite, 5 + etherLen + 28 + writes*(perWrite*(size+etherLen+28)-100)}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// option sets a socket's option.
func option(t *testing.T, c *net.UDPConn, level, name, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, value) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		t.Fatal(err)
	}
}
