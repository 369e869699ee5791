package tunnel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net/url"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

var (
	seed    = flag.Uint64("seed", 1, "seed of random tests")
	verbose = flag.Bool("tunnel.log", false, "log what the nodes say")
)

const (
	ipA = "192.0.2.1"
	ipB = "192.0.2.2"
)

// authority signs certificates of a test fleet. They are valid in a synctest
// bubble, whose clock starts in 2000.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

var fleet = sync.OnceValue(newAuthority)

func newAuthority() authority {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, pub, key)
	if err != nil {
		panic(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return authority{cert, key}
}

func (a authority) config(site, gateway string) *tls.Config {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: site},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		URIs:        []*url.URL{{Scheme: "longhaul", Host: "site", Path: "/" + site + "/" + gateway}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: pool, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			return err
		},
		NextProtos: []string{pki.Proto},
	}
}

func config(site string, sockets Sockets) Config {
	t := fleet().config(site, site+"1")
	c := Config{Site: site, Gateway: site + "1", ServerTLS: t, ClientTLS: t, Listen: ":7447", Sockets: sockets}
	if *verbose {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", site)
	}
	return c
}

// running is a node that runs until stop, or the end of the test.
type running struct {
	*Node
	stop func()
}

func run(t testing.TB, c Config, peers ...Peer) running {
	t.Helper()
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Sockets != nil && n.stock != nil {
		n.firstPacket = stockPacket // see there
	}
	if err := n.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("node %s: %v", c.Site, err)
		}
	})
	return running{n, stop}
}

// lab is two sites on a simulated WAN.
type lab struct {
	t    *testing.T
	wan  *testwan.WAN
	a, b running
}

// options of a lab: changes to the configs.
type options struct {
	a, b   func(*Config)
	dialsB bool // b knows a's address too
	onlyB  bool // b dials, a does not
}

// oneLab is held by the test whose bubble runs. A bubble keeps a processor busy from its
// beginning to its end; four at once on one take 1.4 times as much of it as one after another.
var oneLab sync.Mutex

// inLab runs f in a bubble with two nodes.
func inLab(t *testing.T, line testwan.Line, o options, f func(*testing.T, *lab)) {
	t.Helper()
	fleet() // the CA's key is made outside the bubble
	oneLab.Lock()
	defer oneLab.Unlock()
	synctest.Test(t, func(t *testing.T) {
		w := testwan.New(line, *seed)
		defer w.Close()
		l := &lab{t: t, wan: w}
		ca, cb := config("a", w.Site(ipA)), config("b", w.Site(ipB))
		if o.a != nil {
			o.a(&ca)
		}
		if o.b != nil {
			o.b(&cb)
		}
		pa, pb := Peer{Site: "b", Addrs: []string{ipB + ":7447"}}, Peer{Site: "a"}
		if o.dialsB || o.onlyB {
			pb.Addrs = []string{ipA + ":7447"}
		}
		if o.onlyB {
			pa.Addrs = nil
		}
		l.a, l.b = run(t, ca, pa), run(t, cb, pb)
		defer func() { l.a.stop(); l.b.stop() }()
		f(t, l)
	})
}

func (l *lab) up() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
		if err := link.WaitUp(ctx); err != nil {
			l.t.Fatalf("%v; state %+v", err, link.State())
		}
	}
}

// open opens a channel from a to b.
func (l *lab) open(spec Spec) (from, to *Channel) {
	l.t.Helper()
	from, err := l.a.Link("b").Open(l.t.Context(), spec)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), 15*time.Minute)
	defer cancel()
	to, err = l.b.Accept(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	return from, to
}

// message i of a transfer: its content is a pure function of seed and i.
func message(i, most int) []byte {
	r := mrand.New(mrand.NewPCG(*seed, uint64(i)))
	n := r.IntN(most + 1)
	switch r.IntN(4) {
	case 0:
		n = r.IntN(min(most, 100) + 1)
	case 1:
		n = min(most, 16<<10)
	}
	b := make([]byte, n)
	k := r.Uint64()
	for j := 0; j+8 <= n; j += 8 {
		binary.BigEndian.PutUint64(b[j:], k+uint64(j)*0x9E3779B97F4A7C15)
	}
	return b
}

// transfer sends n messages and checks what arrives.
func transfer(ctx context.Context, from, to *Channel, n, most int) error {
	sent := make(chan error, 1)
	want := sha256.New()
	go func() {
		for i := range n {
			m := message(i, most)
			want.Write(m)
			if _, err := from.Send(ctx, m); err != nil {
				sent <- fmt.Errorf("sending message %d: %w", i+1, err)
				return
			}
		}
		sent <- from.CloseSend(ctx)
	}()
	got := sha256.New()
	count, failed := 0, error(nil)
	for {
		m, err := to.Recv(ctx)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				failed = fmt.Errorf("receiving message %d: %w", count+1, err)
			}
			break
		}
		count++
		if m.Seq != uint64(count) {
			failed = fmt.Errorf("message %d has seq %d", count, m.Seq)
			break
		}
		got.Write(m.Data)
		Recycle(m.Data)
		to.Done(m.Seq)
	}
	if failed != nil {
		from.Abort("test")
		return errors.Join(failed, <-sent)
	}
	if err := <-sent; err != nil {
		return err
	}
	if err := from.Flush(ctx); err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	if count != n || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("got %d messages of %d, digests %x and %x", count, n, got.Sum(nil), want.Sum(nil))
	}
	return nil
}

// lineWAN is slow so that seconds pass with few bytes: in virtual time bytes
// are what a test costs.
var lineWAN = testwan.Line{Delay: 20 * time.Millisecond, Rate: 2_500_000, Queue: 100_000}

func TestTransfer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		line testwan.Line
		opt  options
		spec Spec
	}{
		{"bulk", lineWAN, options{}, Spec{}},
		{"urgent", lineWAN, options{}, Spec{Class: Urgent}},
		{"acceptor dials", lineWAN, options{onlyB: true}, Spec{}},
		{"both dial", lineWAN, options{dialsB: true}, Spec{}},
		{"loss", testwan.Line{Delay: 20 * time.Millisecond, Loss: 0.01}, options{}, Spec{}},
		{"loss 5%", testwan.Line{Delay: 10 * time.Millisecond, Loss: 0.05}, options{}, Spec{}},
		{"reorder and duplicate", testwan.Line{Delay: 10 * time.Millisecond, Reorder: 0.2, Jitter: 5 * time.Millisecond, Duplicate: 0.05}, options{}, Spec{}},
		{"small MTU", testwan.Line{Delay: 10 * time.Millisecond, MTU: 1300}, options{}, Spec{}},
		{"short", testwan.Line{Delay: 200 * time.Microsecond}, options{}, Spec{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLab(t, tt.line, tt.opt, func(t *testing.T, l *lab) {
				spec := tt.spec
				spec.Kind, spec.Header = 7, []byte("header")
				from, to := l.open(spec)
				if to.Kind() != 7 || string(to.Header()) != "header" || to.Site() != "a" || to.ID() != from.ID() {
					t.Errorf("accepted kind %d, header %q, site %q", to.Kind(), to.Header(), to.Site())
				}
				start := time.Now()
				if err := transfer(t.Context(), from, to, 50, 100<<10); err != nil {
					t.Fatal(err)
				}
				took := time.Since(start)
				if err := transfer(t.Context(), to, from, 20, 5<<10); err != nil {
					t.Fatalf("back: %v", err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				for _, link := range []*Link{l.a.Link("b"), l.b.Link("a")} {
					s := link.State()
					if s.Channels != 0 || s.Backlog != 0 || s.Buffered != 0 || granted(link) != 0 {
						t.Errorf("after the end: %d channels, backlog %d, buffered %d, granted %d", s.Channels, s.Backlog, s.Buffered, granted(link))
					}
				}
				s := l.a.Link("b").State()
				t.Logf("%v, %d conns, goodput %d, RTT %v, sent %d, lost %d of %d", took, s.Conns, s.Goodput, s.RTT, s.WireSent, s.PacketsLost, s.PacketsSent)
			})
		})
	}
}

func granted(l *Link) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.granted
}

// inUse is the set of a link, copied; without a set it is zero.
func inUse(l *Link) set {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set == nil {
		return set{}
	}
	return *l.set
}
