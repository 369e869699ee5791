package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// note is a control message.
func note(level, kind int, body []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(body)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(body)))) // Cmsghdr.Len, 64 bit
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], body)
	return b
}

func word(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// TestGather: packets of a stream that come one by one are read together, a
// millisecond late at most; those of a conversation are read as they come.
func TestGather(t *testing.T) {
	for _, tt := range []struct {
		gap         time.Duration
		size        int
		leastPerAsk float64       // packets for each read
		mostLate    time.Duration // from arrival to read
	}{
		{100 * time.Microsecond, streamLen, 5, gather + 100*time.Microsecond},
		{10 * time.Microsecond, streamLen, 8, gather + 100*time.Microsecond},
		{5 * time.Millisecond, streamLen, 1, 0},
		{300 * time.Microsecond, 100, 1, 0}, // answers over a short line
	} {
		synctest.Test(t, func(t *testing.T) {
			const packets = 2000
			began := time.Now()
			due := func(i int) time.Time { return began.Add(time.Duration(i) * tt.gap) }
			i, reads, late := 0, 0, time.Duration(0)
			s := newSplitter(func(ms []ipv4.Message) (n int, err error) {
				if i >= packets {
					return 0, net.ErrClosed
				}
				time.Sleep(time.Until(due(i))) // a socket blocks until there is one
				for ; n < len(ms) && i < packets && !due(i).After(time.Now()); n++ {
					late = max(late, time.Since(due(i)))
					ms[n].N = copy(ms[n].Buffers[0], make([]byte, tt.size))
					i++
				}
				reads++
				return n, nil
			}, new(atomic.Uint64))
			got := 0
			for {
				ms := make([]ipv4.Message, 8)
				for i := range ms {
					ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
				}
				n, err := s.packets(ms)
				if err != nil {
					break
				}
				got += n
			}
			if per := float64(got) / float64(reads); got != packets || per < tt.leastPerAsk || late > tt.mostLate {
				t.Errorf("a packet each %v: %d of %d, %.1f for each read, %v late", tt.gap, got, packets, per, late)
			}
		})
	}
}

// TestSplitter gives out what reads have joined: each packet, in order, with its
// sender and its other notes, however few are asked for at once.
func TestSplitter(t *testing.T) {
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}
	tos := note(unix.IPPROTO_IP, unix.IP_TOS, []byte{2})
	reads := []struct {
		data string
		oob  []byte
	}{
		{"one", tos},
		{"aaaabbbbccccdd", append(note(unix.IPPROTO_UDP, unix.UDP_GRO, word(4)), tos...)},
		{"eeee", note(unix.IPPROTO_UDP, unix.UDP_GRO, word(4))},
		{"", nil}, // an empty datagram is one, too
		{"ffffgggg", append(note(unix.IPPROTO_UDP, unix.UDP_GRO, word(4)), note(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, word(1<<32-1))...)},
		{"h", note(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, word(2))}, // the count has wrapped
		{"iiii", note(unix.IPPROTO_UDP, unix.UDP_GRO, word(1<<31))},
	}
	want := "[one aaaa bbbb cccc dd eeee  ffff gggg h iiii]"
	for _, most := range []int{1, 3, 8} {
		var dropped atomic.Uint64
		left := reads
		s := newSplitter(func(ms []ipv4.Message) (n int, err error) {
			if len(left) == 0 {
				return 0, net.ErrClosed
			}
			for ; n < len(ms) && n < 2 && len(left) > 0; n++ {
				ms[n].N, ms[n].NN = copy(ms[n].Buffers[0], left[0].data), copy(ms[n].OOB, left[0].oob)
				ms[n].Addr = from
				left = left[1:]
			}
			return n, nil
		}, &dropped)
		var got []string
		for {
			ms := make([]ipv4.Message, most)
			for i := range ms {
				ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
			}
			n, err := s.packets(ms)
			if err != nil {
				break
			}
			for _, m := range ms[:n] {
				got = append(got, string(m.Buffers[0][:m.N]))
				if m.Addr != from {
					t.Errorf("%q is from %v", got[len(got)-1], m.Addr)
				}
				if bytes.HasPrefix(m.Buffers[0], []byte("bb")) && !bytes.Contains(m.OOB[:m.NN], tos) {
					t.Errorf("the ECN bits of %q are lost", m.Buffers[0][:m.N])
				}
			}
		}
		if s := fmt.Sprint(got); s != want {
			t.Errorf("%d at once: %s, want %s", most, s, want)
		}
		if n := dropped.Load(); n != 1<<32+2 { // as often as the kernel said
			t.Errorf("%d at once: %d dropped", most, n)
		}
	}
}

func FuzzNotes(f *testing.F) {
	f.Add(note(unix.IPPROTO_UDP, unix.UDP_GRO, word(1400)))
	f.Add(note(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, word(7)))
	f.Add(note(unix.IPPROTO_UDP, unix.UDP_GRO, nil))
	f.Fuzz(func(t *testing.T, oob []byte) {
		if n := readNotes(oob); n.overflows && len(oob) < 20 || n.segment != 0 && len(oob) < 20 {
			t.Errorf("%x says %+v", oob, n)
		}
		segmentSize(oob)
	})
}

// TestJoinedReads: the kernel joins what was sent as one write, and counts what
// finds the buffer full.
func TestJoinedReads(t *testing.T) {
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	m := &meters{only: &meter{count: new(traffic)}}
	sock, cancel := wrap(t.Context(), to, m)
	defer cancel()
	u := sock.(*udpSocket)
	if u.joined == nil {
		nstest.Skip(t, "this kernel joins no reads")
	}
	from, err := net.DialUDP("udp4", nil, to.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const size = 1400
	batch := bytes.Repeat([]byte{1}, 13*size+700)
	if _, _, err := from.WriteMsgUDP(batch, segmentMessage(size), nil); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	packets, total, most := 0, 0, 0
	for total < len(batch) {
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
		}
		n, err := u.ReadBatch(ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			packets++
			total += m.N
			most = max(most, m.N)
		}
	}
	if packets != 14 || most != size {
		t.Errorf("%d packets of at most %d bytes, want 14 of %d", packets, most, size)
	}
	if got := m.only.count.received.Load(); got != int64(len(batch)+14*overhead4) {
		t.Errorf("counted %d bytes", got)
	}

	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	if err != nil {
		t.Fatal(err)
	}
	for range 200 { // more than fits; the one that comes when there is room tells
		_, _ = from.Write(batch[:1000])
	}
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, 128)}}
	_ = to.SetReadDeadline(time.Now().Add(2 * time.Minute))
	for m.only.count.dropped.Load() == 0 {
		if _, err := u.ReadBatch(ms, 0); err != nil {
			t.Fatalf("no drop was counted: %v", err)
		}
		_, _ = from.Write(batch[:1000])
	}
}

// TestPress: the reader waits for a busy connection, and not for ever.
func TestPress(t *testing.T) {
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	m := &meters{only: &meter{count: new(traffic)}}
	sock, cancel := wrap(t.Context(), to, m)
	defer cancel()
	for _, tt := range []struct {
		busy    int // how often it says that it is
		pressed uint64
	}{{0, 0}, {5, 0}, {1 << 30, 1}} {
		asked := 0
		waiting := func() int {
			asked++
			if asked <= tt.busy {
				return 256
			}
			return 255
		}
		m.only.waiting.Store(&waiting)
		if _, err := to.WriteTo([]byte{1}, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 1452)}, OOB: make([]byte, 128)}}
		if n, err := sock.(*udpSocket).ReadBatch(ms, 0); n != 1 || err != nil {
			t.Fatalf("%d packets: %v", n, err)
		}
		if got := m.only.count.pressed.Load(); asked <= min(tt.busy, 10) || got != tt.pressed {
			t.Errorf("busy %d times: asked %d times, pressed %d", tt.busy, asked, got)
		}
	}
}
