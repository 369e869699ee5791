package ccslot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/internal/ackhandler"
	"github.com/quic-go/quic-go/internal/congestion"
)

// counting is a controller that lets half a megabyte be in flight. The counts
// are read by the test while the run loop goes on; all else is the run loop's.
type counting struct {
	sent, acked, migrated, lost atomic.Int64
	hold                        atomic.Pointer[chan struct{}] // while it is there, Acked waits for it
	inFlight                    int64                         // not atomic on purpose: the race detector watches it
}

func (c *counting) CanSend(n int64) bool         { c.inFlight = n; return n < 512<<10 }
func (c *counting) HasBudget(time.Duration) bool { return true }
func (c *counting) NextSend() time.Duration      { return 0 }
func (c *counting) Sent(_ time.Duration, _ int64, _, inFlight int64, _ bool) {
	c.inFlight = inFlight
	c.sent.Add(1)
}
func (c *counting) Acked(time.Duration, int64, int64) {
	c.acked.Add(1)
	if ch := c.hold.Load(); ch != nil {
		<-*ch
	}
}
func (c *counting) Lost(int64, int64)   { c.lost.Add(1) }
func (c *counting) Spurious(int64)      {}
func (c *counting) SetPacketSize(int64) {}
func (c *counting) Migrated()           { c.migrated.Add(1) }
func (c *counting) Window() int64       { return 512 << 10 }

type key struct{}

// certificate of a peer that trusts itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, pub, priv)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: priv}
}

// end is one side: its transport, and the controllers that it put in.
type end struct {
	tr     *quic.Transport
	errors atomic.Int64
}

func newEnd(t *testing.T) *end {
	t.Helper()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	e := &end{tr: &quic.Transport{Conn: pc}}
	t.Cleanup(func() { _ = e.tr.Close(); _ = pc.Close() })
	return e
}

// verify is a VerifyConnection that puts c in.
func (e *end) verify(c *counting) func(tls.ConnectionState) error {
	return func(tls.ConnectionState) error {
		if Install(e.tr, key{}, c, c) != nil {
			e.errors.Add(1)
		}
		return nil
	}
}

// listen accepts connections that echo one stream.
func (e *end) listen(t *testing.T, conf *quic.Config) {
	t.Helper()
	base := &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"test"}, MinVersion: tls.VersionTLS13}
	outer := base.Clone()
	outer.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.VerifyConnection = e.verify(h.Context().Value(key{}).(*counting))
		return c, nil
	}
	e.tr.ConnContext = func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
		return context.WithValue(ctx, key{}, new(counting)), nil
	}
	ln, err := e.tr.Listen(outer, conf)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			go echo(conn)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
}

func echo(conn *quic.Conn) {
	for {
		s, err := conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		b, err := io.ReadAll(s)
		if err != nil {
			return
		}
		seen := conn.Context().Value(key{}).(*counting)
		// Its last byte says whether our controller has been asked.
		b = append(b, boolByte(seen.sent.Load() > 0 && seen.acked.Load() > 0), byte(seen.migrated.Load()))
		_, _ = s.Write(b)
		_ = s.Close()
	}
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (e *end) dial(t *testing.T, to *end, c *counting) *quic.Conn {
	t.Helper()
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"test"}, VerifyConnection: e.verify(c)}
	ctx := context.WithValue(t.Context(), key{}, c)
	conn, err := e.tr.Dial(ctx, to.tr.Conn.LocalAddr(), conf, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	return conn
}

// roundTrip sends n bytes there and back. asked: the far controller is in use;
// moved: how often it was put in again.
func roundTrip(t *testing.T, conn *quic.Conn, n int) (asked bool, moved int) {
	t.Helper()
	s, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{42}, n)
	go func() { _, _ = s.Write(want); _ = s.Close() }()
	got, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != n+2 || !bytes.Equal(got[:n], want) {
		t.Fatalf("%d bytes came back of %d", len(got)-2, n)
	}
	return got[n] == 1, int(got[n+1])
}

func TestQuicGoIsAsWeKnowIt(t *testing.T) {
	const advice = "read doc.go, then quic-go's new code against slot.go and algorithm.go"
	if err := Check(); err != nil {
		t.Errorf("%v; %s", err, advice)
	}
	// The compiler holds what we implement; these hold what we embed: a new
	// method of the handler might also make a controller of its own.
	if n := reflect.TypeFor[ackhandler.SentPacketHandler]().NumMethod(); n != 16 {
		t.Errorf("SentPacketHandler has %d methods, had 16: does a new one touch the controller? %s", n, advice)
	}
	if n := reflect.TypeFor[congestion.SendAlgorithmWithDebugInfos]().NumMethod(); n != 13 {
		t.Errorf("SendAlgorithmWithDebugInfos has %d methods, had 13: what are the new ones for? %s", n, advice)
	}
}

// TestBothEnds is what the race detector is for: the store, and all that the
// run loops do with it afterwards.
func TestBothEnds(t *testing.T) {
	for range 10 {
		server := newEnd(t)
		server.listen(t, nil)
		for range 4 {
			client, c := newEnd(t), new(counting)
			conn := client.dial(t, server, c)
			asked, _ := roundTrip(t, conn, 200<<10)
			if !asked || c.sent.Load() == 0 || c.acked.Load() == 0 {
				t.Errorf("server asks: %v; client has sent %d and acknowledged %d through it", asked, c.sent.Load(), c.acked.Load())
			}
			if client.errors.Load()+server.errors.Load() > 0 {
				t.Error("could not be put in")
			}
		}
	}
}

func TestRetry(t *testing.T) {
	server, client, c := newEnd(t), newEnd(t), new(counting)
	server.tr.VerifySourceAddress = func(net.Addr) bool { return true }
	server.listen(t, nil)
	if asked, _ := roundTrip(t, client.dial(t, server, c), 10<<10); !asked || c.acked.Load() == 0 {
		t.Errorf("server asks: %v; client acknowledged %d", asked, c.acked.Load())
	}
}

// TestMigration: without the wrapper both ends would silently have NewReno on
// the new path.
func TestMigration(t *testing.T) {
	server, client, c := newEnd(t), newEnd(t), new(counting)
	server.listen(t, nil)
	conn := client.dial(t, server, c)
	roundTrip(t, conn, 10<<10)
	path, err := conn.AddPath(newEnd(t).tr)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := path.Switch(); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, conn, 10<<10)
	before := c.acked.Load()
	if asked, moved := roundTrip(t, conn, 100<<10); !asked || moved != 1 || c.migrated.Load() != 1 || c.acked.Load() == before {
		t.Errorf("server asks: %v, was put in again %d times; client %d times, acknowledged %d after %d",
			asked, moved, c.migrated.Load(), c.acked.Load(), before)
	}
}

// TestFallback: a connection that is not found keeps NewReno, and works.
func TestFallback(t *testing.T) {
	server, client, c := newEnd(t), newEnd(t), new(counting)
	server.listen(t, nil)
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"test"}}
	var err error
	conf.VerifyConnection = func(tls.ConnectionState) error {
		err = Install(client.tr, key{}, c, c)
		return nil
	}
	conn, dialed := client.tr.Dial(t.Context(), server.tr.Conn.LocalAddr(), conf, nil) // without the token
	if dialed != nil {
		t.Fatal(dialed)
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	roundTrip(t, conn, 100<<10)
	if !errors.Is(err, errShape) || c.sent.Load() != 0 {
		t.Errorf("error %v, controller has sent %d", err, c.sent.Load())
	}
}

// TestFields: what is not as expected is an error that names it, not a panic.
func TestFields(t *testing.T) {
	type odd struct{ mutex int }
	for _, x := range []any{odd{}, &odd{mutex: 1}, new(int)} {
		if _, err := field[int64](x, "mutex"); !errors.Is(err, errShape) || !strings.Contains(err.Error(), "odd") && !strings.Contains(err.Error(), "int") {
			t.Errorf("%T: %v", x, err)
		}
	}
}
