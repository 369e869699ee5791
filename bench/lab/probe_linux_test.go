package lab

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
)

func TestEcho(t *testing.T) {
	b := echoRequest(7, 70000)
	if len(b) != 64 || internetSum(b) != 0xffff {
		t.Errorf("%d bytes, sum %#x", len(b), internetSum(b))
	}
	if _, ok := echoReply(b, 7); ok {
		t.Error("a request is taken for a reply")
	}
	b[0] = 0
	if seq, ok := echoReply(b, 7); !ok || seq != 70000 {
		t.Errorf("reply %d, %v", seq, ok)
	}
	if _, ok := echoReply(b, 8); ok {
		t.Error("another's reply is taken")
	}
	for n := range b[:20] {
		if _, ok := echoReply(b[:n], 7); ok {
			t.Errorf("%d bytes are a reply", n)
		}
	}
}

func FuzzEchoReply(f *testing.F) {
	b := echoRequest(7, 1)
	b[0] = 0
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if seq, ok := echoReply(b, 7); ok && binary.BigEndian.Uint32(b[16:]) != seq {
			t.Errorf("%x: %d", b, seq)
		}
	})
}

// TestPingReport counts without a network.
func TestPingReport(t *testing.T) {
	now := time.Now()
	p := &Pinger{end: now}
	for i := range 5 {
		p.sent = append(p.sent, now.Add(-pingPatience-time.Minute+time.Duration(i)*10*time.Millisecond))
		p.seen = append(p.seen, false)
	}
	p.sent[4] = now // its answer may still come
	p.gaps.begin(p.sent[0])
	p.answered(0, p.sent[0].Add(time.Millisecond))
	p.answered(2, p.sent[2].Add(3*time.Millisecond))
	p.answered(2, p.sent[2].Add(4*time.Millisecond))
	p.answered(9, now) // never sent
	r := p.Report()
	if r.Sent != 5 || r.Lost != 2 || r.Waiting != 1 || r.Twice != 1 || r.RTT != 2*time.Millisecond {
		t.Errorf("%+v; want 5 sent, 2 lost, 1 waiting, 1 twice, 2 ms", r)
	}
	if r.Longest.For < time.Minute {
		t.Errorf("the gap until the end is missing: %+v", r.Longest)
	}
}

// TestSessionTake finds a record that is missing, comes twice or from the past.
func TestSessionTake(t *testing.T) {
	good := []control.Record{{Kind: control.Tick, Seq: 1, Beat: 5}, {Kind: control.Echo, Seq: 1, Beat: 5}, {Kind: control.Tick, Seq: 2, Beat: 7}}
	for name, bad := range map[string]control.Record{
		"missing":       {Kind: control.Tick, Seq: 4, Beat: 9},
		"twice":         {Kind: control.Tick, Seq: 2, Beat: 9},
		"missing echo":  {Kind: control.Echo, Seq: 3, Beat: 9},
		"from the past": {Kind: control.Tick, Seq: 3, Beat: 6},
	} {
		var s TCPSession
		for _, r := range good {
			if err := s.take(r, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.take(bad, time.Now()); err == nil {
			t.Errorf("%s: %+v is taken", name, bad)
		}
	}
}

// TestRoom: what comes while this process has no processor for two seconds is not lost.
func TestRoom(t *testing.T) {
	to, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := makeRoom(to); err != nil {
		t.Fatal(err)
	}
	from, err := net.Dial("udp", to.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	const n = uint32(2 * time.Second / UDPInterval)
	for seq := range n {
		if _, err := from.Write(datagram(seq)); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	for want := range n {
		got, err := to.Read(b)
		if err != nil {
			t.Fatalf("after %d of %d: %v", want, n, err)
		}
		if seq, ok := echoed(b[:got]); !ok || seq != want {
			t.Fatalf("got %d, want %d", seq, want)
		}
	}
}
