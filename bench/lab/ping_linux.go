package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// PingInterval is how often the Pinger asks.
const PingInterval = 10 * time.Millisecond

// pingPatience is how long an answer may take: the longest pause of a guest
// that is counted as late and not as lost.
const pingPatience = 3 * time.Second

// PingReport is what a Pinger has seen.
type PingReport struct {
	Sent    int           `json:"sent"`
	Lost    int           `json:"lost"`       // unanswered for pingPatience
	Waiting int           `json:"waiting"`    // unanswered, but for less
	Twice   int           `json:"duplicated"` // answers that had come before
	RTT     time.Duration `json:"rtt_ns"`     // mean of those answered
	Longest Gap           `json:"longest"`    // longest time without an answer
	Gaps    []Gap         `json:"gaps"`       // all from 50 ms
}

// A Pinger asks a guest by ICMP echo every PingInterval.
type Pinger struct {
	conn net.PacketConn
	to   net.Addr
	id   uint16

	mu   sync.Mutex // guards what follows
	sent []time.Time
	seen []bool
	sum  time.Duration
	got  int
	dup  int
	gaps gaps
	end  time.Time // of sending; zero until then
}

// Pinger opens a raw socket at the site, to ping ip.
func (s *Site) Pinger(ip string) (*Pinger, error) {
	to, err := net.ResolveIPAddr("ip4", ip)
	if err != nil {
		return nil, fmt.Errorf("pinging %s: %w", ip, err)
	}
	p := &Pinger{to: to, id: uint16(os.Getpid())}
	err = s.Do(func() (err error) {
		p.conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pinging %s: %w", ip, err)
	}
	return p, nil
}

// Run pings until ctx ends, waits for answers that are still due, and returns
// nil. It is called once.
func (p *Pinger) Run(ctx context.Context) error {
	answers := make(chan error, 1) // the end of receive
	go func() { answers <- p.receive() }()
	err := p.send(ctx)
	p.mu.Lock()
	p.end = time.Now()
	p.mu.Unlock()
	p.settle()
	p.conn.Close()
	if got := <-answers; !errors.Is(got, net.ErrClosed) {
		err = errors.Join(err, got)
	}
	return err
}

func (p *Pinger) send(ctx context.Context) error {
	tick := time.NewTicker(PingInterval)
	defer tick.Stop()
	p.mu.Lock()
	p.gaps.begin(time.Now())
	p.mu.Unlock()
	for {
		p.mu.Lock()
		seq := len(p.sent)
		p.sent, p.seen = append(p.sent, time.Now()), append(p.seen, false)
		p.mu.Unlock()
		if _, err := p.conn.WriteTo(echoRequest(p.id, uint32(seq)), p.to); err != nil && !unreachable(err) {
			return fmt.Errorf("sending a ping: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// settle waits until every ping has been answered or is lost.
func (p *Pinger) settle() {
	look := time.NewTicker(PingInterval)
	defer look.Stop()
	for p.Report().Waiting > 0 {
		<-look.C
	}
}

// unreachable tells errors that mean a lost ping: they come late, from an
// unanswered ARP request, or from a full transmit queue.
func unreachable(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.ENOBUFS)
}

func (p *Pinger) receive() error {
	b := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFrom(b)
		if err != nil {
			if unreachable(err) {
				continue
			}
			return err
		}
		if seq, ok := echoReply(b[:n], p.id); ok && from.String() == p.to.String() {
			p.answered(seq, time.Now())
		}
	}
}

func (p *Pinger) answered(seq uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case int(seq) >= len(p.sent):
		return
	case p.seen[seq]:
		p.dup++
		return
	}
	p.seen[seq] = true
	p.got++
	p.sum += now.Sub(p.sent[seq])
	p.gaps.arrived(now)
}

// Report tells what has been seen so far.
func (p *Pinger) Report() PingReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := PingReport{Sent: len(p.sent), Twice: p.dup, Gaps: append([]Gap(nil), p.gaps.list...)}
	r.Longest = p.gaps.longestBy(p.end)
	now := time.Now()
	for i, seen := range p.seen {
		switch {
		case seen:
		case now.Sub(p.sent[i]) > pingPatience:
			r.Lost++
		default:
			r.Waiting++
		}
	}
	if p.got > 0 {
		r.RTT = p.sum / time.Duration(p.got)
	}
	return r
}

// echoRequest is an ICMP echo request (RFC 792) whose data holds the sequence
// number in full: the header's has 16 bits, 11 minutes of pings.
func echoRequest(id uint16, seq uint32) []byte {
	b := []byte{8, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(seq))
	b = append(b, "longhaul"...)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = append(b, make([]byte, 44)...) // 64 bytes in all, as ping(8) sends
	binary.BigEndian.PutUint16(b[2:], ^internetSum(b))
	return b
}

// echoReply reads the sequence number of an answer to us.
func echoReply(b []byte, id uint16) (seq uint32, ok bool) {
	if len(b) < 20 || b[0] != 0 || binary.BigEndian.Uint16(b[4:]) != id || string(b[8:16]) != "longhaul" {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[16:]), true
}

// internetSum is the ones' complement sum of RFC 1071; len(b) is even.
func internetSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
