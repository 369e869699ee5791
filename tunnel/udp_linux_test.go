package tunnel

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// segmentMessage is the control message with which quic-go asks for packets of size.
func segmentMessage(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(size))
	return b
}

// TestBatchesAreSplit sends batches through the kernel's segmentation: the
// packets are those that were asked for, and no more leave at once than 2 ms of
// the cap allow.
func TestBatchesAreSplit(t *testing.T) {
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	for _, tt := range []struct {
		rate  int64
		parts int // writes of a batch of 14 packets
	}{{0, 1}, {125_000_000, 1}, {2_000_000, 7}, {900_000, 14}, {125_000, 14}} {
		from, err := net.ListenUDP("udp4", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		count := new(traffic)
		s, cancel := wrap(t.Context(), from, &meters{only: &meter{bucket: shaper.New(tt.rate), class: shaper.Bulk, count: count}})
		defer cancel()
		u := s.(*udpSocket)
		var parts []int
		u.wait = func(_ *meter, n int) error { parts = append(parts, n); return nil }
		const size, last = 1400, 700
		n, _, err := u.WriteMsgUDP(make([]byte, 13*size+last), segmentMessage(size), to.LocalAddr().(*net.UDPAddr))
		if err != nil || n != 13*size+last {
			t.Fatalf("wrote %d: %v", n, err)
		}
		if len(parts) != tt.parts || count.sent.Load() != 13*size+last+14*overhead4 {
			t.Errorf("at %d: %v, counted %d; want %d parts", tt.rate, parts, count.sent.Load(), tt.parts)
		}
		for i := range 14 {
			b := make([]byte, 2000)
			if err := to.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, err := to.Read(b)
			if want := size; err != nil || (n != want && i < 13) || (n != last && i == 13) {
				t.Fatalf("at %d, packet %d: %d bytes, %v", tt.rate, i, n, err)
			}
		}
	}
}
