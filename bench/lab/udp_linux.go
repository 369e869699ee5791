package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/bench/wanem"
)

// UDPInterval is how often a UDPProbe sends: so many probes lost are so many ms of loss.
const UDPInterval = time.Millisecond

// udpPatience is how long UDPProbe waits at its end for an answer when some are missing. It is as
// long as a pause of a guest may be.
const udpPatience = pingPatience

// A UDPProbe sends numbered datagrams, or pings, to an echo every UDPInterval.
type UDPProbe struct {
	conn    net.Conn
	compose func(seq uint32) []byte
	parse   func([]byte) (seq uint32, ok bool)

	mu   sync.Mutex // guards what follows
	sent []time.Time
	came []time.Time // when the answer came; zero: not yet
	got  int
	last time.Time // when one came last
}

// UDPSeen is what a UDPProbe has seen of a time.
type UDPSeen struct {
	Sent int `json:"sent"`
	Lost int `json:"lost"`        // never answered
	Late int `json:"late"`        // answered after more than a round trip and 10 ms: they waited for a guest that stood still
	Gap  Gap `json:"longest_gap"` // without an answer
}

// UDPProbe opens a socket at the site, to ask an echo at ip.
func (s *Site) UDPProbe(ip string, port int) (*UDPProbe, error) {
	c, err := s.dialRoomy("udp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return &UDPProbe{conn: c, compose: datagram, parse: echoed}, nil
}

// EchoProbe is a UDPProbe that pings: an emulated guest can answer a thousand a second in its kernel, but not
// by a program.
func (s *Site) EchoProbe(ip string) (*UDPProbe, error) {
	c, err := s.dialRoomy("ip4:icmp", ip)
	if err != nil {
		return nil, err
	}
	id := uint16(os.Getpid())
	return &UDPProbe{
		conn:    c,
		compose: func(seq uint32) []byte { return echoRequest(id, seq) },
		parse:   func(b []byte) (uint32, bool) { return echoReply(b[min(ipHeader, len(b)):], id) },
	}, nil
}

// dialRoomy opens a socket at the site that has room for what comes.
func (s *Site) dialRoomy(network, addr string) (net.Conn, error) {
	c, err := s.Dial(context.Background(), network, addr)
	if err != nil {
		return nil, fmt.Errorf("probing %s: %w", addr, err)
	}
	if err := makeRoom(c); err != nil {
		c.Close()
		return nil, fmt.Errorf("probing %s: %w", addr, err)
	}
	return c, nil
}

// room is a socket's buffer for what it receives, in bytes: several seconds of probes. The
// kernel's 208 KiB have 277, and what finds it full because this process has had no
// processor for 0.3 s, as while two gateways start, would count as lost on the way.
const room = 8 << 20

// makeRoom gives it to a socket.
func makeRoom(c any) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no socket", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) }); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt SO_RCVBUFFORCE", failed)
}

// ipHeader is what Read of a raw socket leaves before the message, in bytes: IPv4's, without options.
const ipHeader = 20

func datagram(seq uint32) []byte { return binary.BigEndian.AppendUint32([]byte("longhaul"), seq) }

func echoed(b []byte) (seq uint32, ok bool) {
	if len(b) != 12 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[8:]), true
}

// Run sends until ctx ends, waits for answers that are still due, and returns nil. It is called once.
func (p *UDPProbe) Run(ctx context.Context) error {
	answers := make(chan error, 1) // the end of receive
	go func() { answers <- p.receive() }()
	sent := make(chan struct{}) // closed when no more are sent
	go func() {
		defer close(sent)
		p.sendAll(ctx)
	}()
	<-sent
	for since := time.Now(); p.waits(since); {
		time.Sleep(UDPInterval)
	}
	p.conn.Close()
	if err := <-answers; !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("probing %v: %w", p.conn.RemoteAddr(), err)
	}
	return nil
}

// sendAll sends until ctx ends, on a thread of its own that goes before those of the guest and
// the gateways, so that a machine with much to do is probed as often as an idle one.
func (p *UDPProbe) sendAll(ctx context.Context) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	_ = wanem.Precise()    // where the kernel forbids it, it goes when it is its turn
	for due := time.Now(); ctx.Err() == nil; {
		p.send()
		if due = due.Add(UDPInterval); time.Since(due) > UDPInterval {
			due = time.Now() // what was missed is not made up for
		}
		rest := unix.NsecToTimespec(max(time.Until(due).Nanoseconds(), 1))
		_ = unix.Nanosleep(&rest, nil) // a signal that ends it is no harm
	}
}

// send sends one. One that the machine cannot send is lost.
func (p *UDPProbe) send() {
	p.mu.Lock()
	b := p.compose(uint32(len(p.sent)))
	p.sent, p.came = append(p.sent, time.Now()), append(p.came, time.Time{})
	p.mu.Unlock()
	_, _ = p.conn.Write(b)
}

// waits tells whether some are missing that may still come; since is the end of sending.
func (p *UDPProbe) waits(since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.After(since) {
		since = p.last
	}
	return p.got < len(p.sent) && time.Since(since) < udpPatience
}

func (p *UDPProbe) receive() error {
	for b := make([]byte, 128); ; {
		n, err := p.conn.Read(b)
		switch {
		case errors.Is(err, unix.ECONNREFUSED) || err != nil && unreachable(err):
		case err != nil:
			return err
		default:
			if seq, ok := p.parse(b[:n]); ok {
				p.answered(int(seq), time.Now())
			}
		}
	}
}

func (p *UDPProbe) answered(seq int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq >= len(p.came) || !p.came[seq].IsZero() {
		return
	}
	p.came[seq], p.last = now, now
	p.got++
}

// Answered is how many answers have come.
func (p *UDPProbe) Answered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got
}

// Seen tells of the probes that were sent from one time to another. What is not answered counts as
// lost, so it is asked after Run has ended. rtt is a round trip.
func (p *UDPProbe) Seen(from, to time.Time, rtt time.Duration) (s UDPSeen) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := from
	for i, at := range p.sent {
		if at.Before(from) || at.After(to) {
			continue
		}
		s.Sent++
		came := p.came[i]
		switch {
		case came.IsZero():
			s.Lost++
			continue
		case came.Sub(at) > rtt+10*time.Millisecond:
			s.Late++
		}
		if came.After(last) {
			if gap := came.Sub(last); gap > s.Gap.For {
				s.Gap = Gap{last, gap}
			}
			last = came
		}
	}
	return s
}

// Median is the median round trip of the probes that were sent from one time to another; zero if none
// of them was answered.
func (p *UDPProbe) Median(from, to time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []time.Duration
	for i, at := range p.sent {
		if !at.Before(from) && !at.After(to) && !p.came[i].IsZero() {
			all = append(all, p.came[i].Sub(at))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// EchoUDP answers datagrams at a port of the site until the context ends, and returns nil.
func (s *Site) EchoUDP(ctx context.Context, port int) error {
	var c net.PacketConn
	err := s.Do(func() (err error) {
		c, err = net.ListenPacket("udp", ":"+strconv.Itoa(port))
		return err
	})
	if err != nil {
		return fmt.Errorf("answering at port %d: %w", port, err)
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	if err := makeRoom(c); err != nil {
		return fmt.Errorf("answering at port %d: %w", port, err)
	}
	for b := make([]byte, 2048); ; {
		n, from, err := c.ReadFrom(b)
		if err == nil {
			_, err = c.WriteTo(b[:n], from)
		}
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil && !unreachable(err) {
			return fmt.Errorf("answering at port %d: %w", port, err)
		}
	}
}
