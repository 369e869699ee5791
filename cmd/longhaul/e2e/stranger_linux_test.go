package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

const (
	floodTime    = 2 * time.Second
	floodDialers = 32
	floodMemory  = 64 << 20 // bytes that a flood may cost the gateway (facts/reliability.md, C.4)
	strangerTime = time.Minute
	linkSettles  = 3 * time.Second // in which the slower of two dials has long arrived
)

// TestStranger: who has no certificate of the fleet gets no further than a
// handshake that fails, and those who have one notice nothing.
func TestStranger(t *testing.T) {
	b := newBed(t, bedOptions{link: lab.Link{Rate: 200e6, RTT: 10e6}, noGuest: true})
	since := b.steady(t)
	for name, config := range map[string]*tls.Config{
		"no certificate":          {},
		"self-signed certificate": {GetClientCertificate: insists(selfSigned(t))},
	} {
		t.Run(name, func(t *testing.T) {
			config.InsecureSkipVerify, config.NextProtos, config.MinVersion = true, []string{pki.Proto}, tls.VersionTLS13
			b.turnedAway(t, config)
		})
	}
	t.Run("flood", b.flood)
	t.Run("garbage", b.garbage)
	if now := b.linkSince(t); now != since {
		t.Errorf("the link went down: up since %v, then since %v", since, now)
	}
}

// steady is since when both gateways see each other, once that does not change
// any more: each dials the other, and of two links that cross one is kept.
func (b *bed) steady(t *testing.T) (since [2]time.Time) {
	t.Helper()
	for {
		since = b.linkSince(t)
		if up := min(time.Since(since[0]), time.Since(since[1])); up < linkSettles {
			time.Sleep(linkSettles - up)
			continue
		}
		return since
	}
}

// linkSince is since when both gateways see each other.
func (b *bed) linkSince(t *testing.T) (since [2]time.Time) {
	t.Helper()
	for i, s := range b.sites() {
		st, err := b.pair.API(s).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(st.Peers) != 1 || !st.Peers[0].Alive {
			t.Fatalf("the link of site %s is down: %+v", s.Name, st.Peers)
		}
		since[i] = st.Peers[0].Since
	}
	return since
}

// selfSigned claims to be a gateway of the fleet.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name, err := url.Parse("longhaul://site/b/gw1")
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "b/gw1"}, URIs: []*url.URL{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// insists shows a certificate although the server has said that it trusts none
// of its kind.
func insists(c tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
}

// socket opens a UDP socket at site b.
func (b *bed) socket(t *testing.T) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := b.lab.B.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: b.lab.B.WAN.AsSlice()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bed) target() *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.lab.A.WAN, pair.LinkPort))
}

// turnedAway dials as a stranger. In TLS 1.3 a client has finished before the
// server has seen its certificate, so that it learns its fate a moment later.
func (b *bed) turnedAway(t *testing.T, config *tls.Config) {
	ctx, cancel := context.WithTimeout(t.Context(), strangerTime)
	defer cancel()
	conn, err := quic.Dial(ctx, b.socket(t), b.target(), config, &quic.Config{EnableDatagrams: true})
	if err == nil {
		defer conn.CloseWithError(0, "")
		select {
		case <-conn.Context().Done():
			err = context.Cause(conn.Context())
		case <-ctx.Done():
			t.Fatal("a stranger has a connection")
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("a stranger hears nothing: %v", err)
	}
	t.Logf("a stranger hears: %v", err)
}

// flood begins handshakes as fast as it can.
func (b *bed) flood(t *testing.T) {
	before, _, err := b.pair.Process(b.lab.A).Resident()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), floodTime)
	defer cancel()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{pki.Proto}, MinVersion: tls.VersionTLS13, GetClientCertificate: insists(selfSigned(t))}
	var tries atomic.Int64
	var wg sync.WaitGroup
	for range floodDialers {
		transport := &quic.Transport{Conn: b.socket(t)}
		wg.Go(func() {
			defer transport.Close()
			for ctx.Err() == nil {
				tries.Add(1)
				if conn, err := transport.Dial(ctx, b.target(), config, nil); err == nil {
					conn.CloseWithError(0, "")
				}
			}
		})
	}
	wg.Wait()
	b.bounded(t, fmt.Sprintf("%d handshakes", tries.Load()), before)
	b.linkSince(t)
}

// garbage sends datagrams that are no QUIC, or look like its first packets.
func (b *bed) garbage(t *testing.T) {
	before, _, err := b.pair.Process(b.lab.A).Resident()
	if err != nil {
		t.Fatal(err)
	}
	c := b.socket(t)
	random := mrand.New(mrand.NewPCG(1, 2))
	buf := make([]byte, 1400)
	n := 0
	for over := time.After(floodTime / 2); ; n++ {
		for i := range buf {
			buf[i] = byte(random.Uint32())
		}
		if n%2 == 0 {
			copy(buf, []byte{0xc3, 0, 0, 0, 1, 8}) // long header, Initial, version 1 (RFC 9000, 17.2.2)
		}
		if _, err := c.WriteToUDP(buf[:1+random.IntN(len(buf))], b.target()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-over:
			b.bounded(t, fmt.Sprintf("%d datagrams of garbage", n), before)
			return
		default:
		}
	}
}

// bounded checks what an attack has cost the gateway of site a.
func (b *bed) bounded(t *testing.T, what string, before int64) {
	t.Helper()
	after, files, err := b.pair.Process(b.lab.A).Resident()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d MiB, then %d MiB and %d files", what, before>>20, after>>20, files)
	if after-before > floodMemory {
		t.Errorf("%s cost %d MiB; the limit is %d", what, (after-before)>>20, floodMemory>>20)
	}
}
