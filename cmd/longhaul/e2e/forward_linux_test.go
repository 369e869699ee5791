package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
)

// Ports on the loopback of the sites.
const (
	migrationOut = 49300 // where a source connects to its gateway
	migrationIn  = 49400 // where a destination listens
	serviceOut   = 49301
	serviceIn    = 49401
	refusedOut   = 49302
)

const forwardConfig = `forwards:
  - {name: mig-tcp, listen: "tcp:127.0.0.1:%d", to: %s, target: "tcp:127.0.0.1:%d"}
  - {name: mig-unix, listen: "unix:%s/run/forward/out", to: %s, target: "unix:%s/run/forward/in"}
  - {name: service, listen: "tcp:127.0.0.1:%d", to: %s, target: "tcp:127.0.0.1:%d"}
  - {name: refused, listen: "tcp:127.0.0.1:%d", to: %s, target: "tcp:10.77.0.2:22"}
`

// forwards of a site, to the other one.
func forwards(b *bed) func(*lab.Site) string {
	return func(s *lab.Site) string {
		to := b.lab.B
		if s == b.lab.B {
			to = b.lab.A
		}
		return fmt.Sprintf(forwardConfig, migrationOut, to.Name, migrationIn, s.Dir, to.Name, to.Dir,
			serviceOut, to.Name, serviceIn, refusedOut, to.Name)
	}
}

// newForwardBed makes a bed whose gateways have forwards.
func newForwardBed(t *testing.T, o bedOptions) *bed {
	t.Helper()
	o.noPair = true
	withGuest := !o.noGuest
	o.noGuest = true
	b := newBed(t, o)
	o.extra = forwards(b)
	b.startPair(t, o)
	if withGuest {
		b.boot(t, o)
	}
	return b
}

// handCase is one migration by hand. A bed takes no more than four: a MAC that
// moves five times in three minutes without a job is taken for one that is
// there twice, and stays where it is (l2ext, as RFC 7432 section 15.1).
type handCase struct {
	name string
	m    handMove
}

// slowly makes rounds before postcopy begins.
func slowly() map[string]any {
	return map[string]any{"max-bandwidth": 32 << 20, "downtime-limit": 1}
}

// TestForwardTCP has QEMUs migrate through a TCP forward by their own commands,
// and other protocols pass.
func TestForwardTCP(t *testing.T) {
	t.Parallel()
	b := newForwardBed(t, bedOptions{link: forwardLink(), fill: 30, dirty: forwardDirty()})
	b.byHand(t, "mig-tcp", []handCase{
		{"precopy", handMove{}},
		{"multifd", handMove{capabilities: []string{"multifd"}, parameters: map[string]any{"multifd-channels": 2}}},
		{"xbzrle", handMove{capabilities: []string{"xbzrle"}}},
		{"postcopy preempt", handMove{capabilities: []string{"postcopy-ram", "postcopy-preempt"}, parameters: slowly(), postcopy: true}},
	})
	t.Run("echo", func(t *testing.T) { b.echo(t, "") })
	t.Run("server first", func(t *testing.T) { b.echo(t, "SSH-2.0-e2e\r\n") })
	t.Run("refused", b.refused)
}

// TestForwardUnix is the same by a unix socket.
func TestForwardUnix(t *testing.T) {
	t.Parallel()
	b := newForwardBed(t, bedOptions{link: forwardLink(), fill: 30, dirty: forwardDirty()})
	b.byHand(t, "mig-unix", []handCase{
		{"precopy", handMove{}},
		{"multifd", handMove{capabilities: []string{"multifd"}, parameters: map[string]any{"multifd-channels": 2}}},
		{"postcopy", handMove{capabilities: []string{"postcopy-ram"}, parameters: slowly(), postcopy: true}},
	})
}

// TestForwardCompressed has QEMUs compress what they send: the pages are seen
// all the same, and less crosses than they have written. The gateways know what the
// line carries: QEMU's own compression takes the cores, and what has never made the
// gateways wait they would take for endless.
func TestForwardCompressed(t *testing.T) {
	b := newForwardBed(t, bedOptions{link: forwardLink(), rate: int64(forwardLink().Rate), fill: 30, dirty: forwardDirty()})
	compressed := func(method string) handMove {
		return handMove{capabilities: []string{"multifd"}, parameters: map[string]any{"multifd-channels": 2, "multifd-compression": method}}
	}
	b.byHand(t, "mig-tcp", []handCase{
		{"zlib", compressed("zlib")},
		{"zstd", compressed("zstd")}, // home, where most pages are known
	})
}

func forwardLink() lab.Link { return lab.Link{Rate: 200e6, RTT: 20 * time.Millisecond} }

func forwardDirty() control.Dirty { return control.Dirty{Rate: 300, Hot: 3000, Sparse: 75, Disk: 20} }

// byHand moves the guest by hand in each way.
func (b *bed) byHand(t *testing.T, forward string, cases []handCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.m.out, c.m.in = b.ends(forward)
			from := b.at
			before := b.forward(t, from, forward)
			if c.m.postcopy { // so much that it does not converge before
				b.dirty(t, control.Dirty{Rate: 4000, Hot: 6000, Disk: 5})
			}
			end := b.moveByHand(t, c.m)
			b.dirty(t, forwardDirty())
			b.executesAt(t, b.at)
			b.beats(t)
			b.verify(t)
			b.idle(t, from, forward)
			f := b.forward(t, from, forward)
			logical, wire := f.Logical-before.Logical, f.Wire-before.Wire
			t.Logf("%d rounds, %d connections, %d bytes, QEMU counts %d, as %d: %.2f to 1",
				end.RAM.Rounds, f.Total-before.Total, logical, end.RAM.Transferred, wire, float64(logical)/float64(wire))
			if logical < end.RAM.Transferred*9/10 || wire <= 0 || wire > logical*2/3 || wire >= end.RAM.Transferred {
				t.Errorf("QEMU wrote %d bytes; the forward counts %d bytes and %d on the wire", end.RAM.Transferred, logical, wire)
			}
		})
		if t.Failed() {
			t.FailNow() // the bed is not what the next case expects
		}
	}
}

func (b *bed) dirty(t *testing.T, d control.Dirty) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	if err := b.ask.SetDirty(ctx, d); err != nil {
		t.Fatal(err)
	}
}

// ends are where a source connects and a destination listens.
func (b *bed) ends(forward string) (out, in string) {
	if forward == "mig-tcp" {
		return fmt.Sprintf("tcp:127.0.0.1:%d", migrationOut), fmt.Sprintf("tcp:127.0.0.1:%d", migrationIn)
	}
	return "unix:" + filepath.Join(b.at.Dir, "run/forward/out"), "unix:" + filepath.Join(b.other().Dir, "run/forward/in")
}

func (b *bed) forward(t *testing.T, s *lab.Site, name string) gateway.Forward {
	t.Helper()
	all, err := b.pair.API(s).Forwards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("site %s has no forward %s", s.Name, name)
	return gateway.Forward{}
}

// idle waits until the connections of a forward have ended.
func (b *bed) idle(t *testing.T, s *lab.Site, name string) {
	t.Helper()
	poll(t, t.Context(), func() error {
		if f := b.forward(t, s, name); f.Conns > 0 {
			return fmt.Errorf("forward %s has %d connections", name, f.Conns)
		}
		return nil
	})
}

// listen listens inside a site and serves each connection.
func listen(t *testing.T, s *lab.Site, port int, serve func(net.Conn)) {
	t.Helper()
	var ln net.Listener
	err := s.Do(func() (err error) {
		ln, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-ended })
}

// dial connects to a port of a site's loopback.
func dial(t *testing.T, s *lab.Site, port int) *net.TCPConn {
	t.Helper()
	c, err := s.Dial(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(settleTime)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// echo sends what is no migration through a forward, after hearing a greeting
// if the server speaks first, and gets it back whole; half-closing works.
func (b *bed) echo(t *testing.T, greeting string) {
	listen(t, b.lab.B, serviceIn, func(c net.Conn) {
		if _, err := io.WriteString(c, greeting); err == nil {
			io.Copy(c, c)
		}
	})
	c := dial(t, b.lab.A, serviceOut)
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != greeting {
		t.Fatalf("greeting %q, %v; want %q", got, err, greeting)
	}
	sent := make([]byte, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	wrote := make(chan error, 1) // the end of the writer
	go func() {
		_, err := c.Write(sent)
		wrote <- errors.Join(err, c.CloseWrite())
	}()
	back, err := io.ReadAll(c)
	if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(back, sent) {
		t.Errorf("%d bytes came back of %d, %v", len(back), len(sent), err)
	}
}

// refused connects to a forward whose target the far site does not allow.
func (b *bed) refused(t *testing.T) {
	c := dial(t, b.lab.A, refusedOut)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a forward that is not allowed says %q, %v", got, err)
	}
	const why = "forward to tcp:10.77.0.2:22 is not in forward_allow of site b"
	for _, s := range b.sites() {
		poll(t, t.Context(), func() error { return b.says(s, why) })
	}
}

// says tells whether the log of a gateway has a text.
func (b *bed) says(s *lab.Site, text string) error {
	log, err := os.ReadFile(filepath.Join(s.Dir, "longhauld.log"))
	if err == nil && !strings.Contains(string(log), text) {
		err = fmt.Errorf("the log of site %s does not say %q", s.Name, text)
	}
	return err
}
