package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// TestRealTCP is a link over the kernel's TCP.
func TestRealTCP(t *testing.T) {
	a, b := onLoopback(t, func(c *Config) { c.Carrier = TCP })
	from, to := openPair(t, a, b, Spec{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := transfer(ctx, from, to, 80, 500<<10); err != nil {
		t.Fatal(err)
	}
	s := a.Link("b").State()
	if s.Carrier != TCP || !strings.HasPrefix(s.Controller, "kernel ") {
		t.Errorf("state %+v", s)
	}
	if runtime.GOOS == "linux" && (s.RTT == 0 || s.PacketsSent == 0 || s.Controller == "kernel tcp") {
		t.Errorf("the kernel tells nothing: %+v", s)
	}
}

// noUDP is real sockets behind a firewall that refuses UDP.
type noUDP struct{ udpSockets }

// Dial implements Sockets.
func (noUDP) Dial(context.Context, string, string) (net.PacketConn, net.Addr, error) {
	return nil, nil, &net.OpError{Op: "write", Net: "udp", Err: syscall.EPERM}
}

// TestEnrolByTCP: a stranger without UDP can enrol.
func TestEnrolByTCP(t *testing.T) {
	heard := make(chan string, 1) // one stranger
	conf := fleet().config("a", "a1")
	conf.NextProtos = []string{pki.Proto, pki.EnrolProto}
	addr := freePort(t)
	a := run(t, Config{Site: "a", Gateway: "a1", ServerTLS: conf, ClientTLS: conf, Listen: addr,
		Enrol: func(_ context.Context, conn net.Conn, _ tls.ConnectionState) {
			b, err := io.ReadAll(conn)
			if err != nil {
				t.Error(err)
			}
			heard <- string(b)
			_, _ = io.WriteString(conn, "welcome")
		}})
	defer a.stop()
	stranger := fleet().config("b", "b1")
	stranger.NextProtos = []string{pki.EnrolProto}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var conn net.Conn
	for conn == nil { // it may not listen yet
		var err error
		if conn, err = DialEnrol(ctx, noUDP{}, addr, stranger); err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "welcome" || <-heard != "hello" {
		t.Errorf("answered %q, %v", got, err)
	}
	conn.Close()
}

// TestStrangersByTCP: strangers without a certificate, with nonsense or without a
// word get nowhere, in bounded numbers, and the link lives.
func TestStrangersByTCP(t *testing.T) {
	t.Parallel()
	inTCPLab(t, testwan.Line{Delay: time.Millisecond}, Auto, Auto, func(t *testing.T, l *lab) {
		l.up()
		site := l.wan.StreamSite("203.0.113.9")
		dial := func() net.Conn {
			c, err := site.DialStream(t.Context(), "", ipB+":7447")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		var silent []net.Conn
		for range maxHandsFrom {
			silent = append(silent, dial())
		}
		over := dial()
		if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("one over the bound: %v", err)
		}
		began := time.Now()
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("a silent one: %v", err)
			}
		}
		if took := time.Since(began); took > quicHandshake+time.Second {
			t.Errorf("silent ones are kept for %v", took)
		}
		nonsense := dial()
		_, _ = io.WriteString(nonsense, "GET / HTTP/1.1\r\n\r\n")
		if _, err := io.Copy(io.Discard, nonsense); err != nil {
			t.Errorf("nonsense: %v", err)
		}
		c := tls.Client(dial(), newAuthority().config("x", "x1"))
		if err := c.Handshake(); err == nil {
			_, err = c.Read(make([]byte, 1))
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("of another fleet: %v", err)
			}
		}
		if s := l.b.Link("a").State(); !s.Up || len(l.b.Links()) != 1 {
			t.Errorf("state %+v", s)
		}
	})
}
