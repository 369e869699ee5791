package wan

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// quicStock is quic-go as it comes, with windows that never limit it.
type quicStock struct{}

func quicConfig() *quic.Config {
	const window = 96 << 20
	return &quic.Config{
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
		InitialConnectionReceiveWindow: window, MaxConnectionReceiveWindow: window,
		KeepAlivePeriod: 5 * time.Second,
	}
}

const quicProto = "longhaul-bench"

func (quicStock) serve(ctx context.Context, c endConfig, got *tally, ready func()) error {
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	ln, err := quic.ListenAddr(c.Addr, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{quicProto}}, quicConfig())
	if err != nil {
		return err
	}
	defer ln.Close()
	ready()
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			return err
		}
		go func() {
			for {
				str, err := conn.AcceptStream(ctx)
				if err != nil {
					return
				}
				go take(str, got)
			}
		}()
	}
}

// dial gives each connection a socket of its own.
func (quicStock) dial(ctx context.Context, c endConfig) (sender, error) {
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{quicProto}}
	var s streams
	for i := range c.Peer.Conns + 1 {
		conn, err := quic.DialAddr(ctx, c.Addr, conf, quicConfig())
		if err != nil {
			return nil, err
		}
		str, err := conn.OpenStreamSync(ctx)
		if err != nil {
			return nil, err
		}
		if i == c.Peer.Conns {
			s.pings = str
		} else {
			s.bulks = append(s.bulks, str)
		}
	}
	return s, s.announce()
}

func selfSigned() (tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4zero}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, pub, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
