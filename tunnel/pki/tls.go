package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The application protocols (ALPN).
const (
	Proto      = "longhaul/1"       // between gateways
	EnrolProto = "longhaul-enrol/1" // of a token's holder with the founding gateway
)

// ErrRevoked is returned for a peer whose certificate has been revoked.
var ErrRevoked = errors.New("certificate has been revoked")

// ServerTLS is for the side that accepts. It stays valid for the process's
// life: renewed certificates and revocations apply to each new handshake.
func (id *Identity) ServerTLS() *tls.Config {
	server := id.baseTLS(Proto)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	server.ClientCAs = pool(id.ca)
	server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return id.certificate(), nil
	}
	server.VerifyConnection = id.verifyPeer
	if id.key == nil {
		return server
	}
	enrol := server.Clone()
	enrol.NextProtos = []string{EnrolProto}
	enrol.ClientAuth = tls.RequireAnyClientCert // signed by itself: verifyJoiner knows its key
	enrol.ClientCAs = nil
	enrol.VerifyConnection = id.verifyJoiner
	server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Equal(hello.SupportedProtos, enrol.NextProtos) {
			return enrol, nil
		}
		return nil, nil
	}
	return server
}

// ClientTLS is for the side that dials. It stays valid like ServerTLS's. Set
// ServerName(site) in a clone to reach that site and no other.
func (id *Identity) ClientTLS() *tls.Config {
	client := id.baseTLS(Proto)
	// The standard check wants a DNS name or an address. verifyServer checks
	// the chain, and the name that our certificates have.
	client.InsecureSkipVerify = true
	client.VerifyConnection = id.verifyServer
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return id.certificate(), nil
	}
	return client
}

func (id *Identity) baseTLS(proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{proto},
		Time:       id.now,
		// A resumed session would show a certificate that was checked long ago.
		SessionTicketsDisabled: true,
	}
}

func pool(ca *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca)
	return p
}

// verifyPeer is asked on both sides: is this a gateway of our fleet?
func (id *Identity) verifyPeer(cs tls.ConnectionState) error {
	if cs.NegotiatedProtocol != Proto {
		return fmt.Errorf("peer speaks protocol %q, want %q", cs.NegotiatedProtocol, Proto)
	}
	return id.Check(cs)
}

func (id *Identity) verifyServer(cs tls.ConnectionState) error {
	if err := id.verifyPeer(cs); err != nil {
		return err
	}
	want, ok := strings.CutSuffix(cs.ServerName, serverSuffix)
	if !ok {
		return nil
	}
	if site, _, err := PeerSite(cs); err != nil || site != want {
		return fmt.Errorf("peer is of site %s, want %s", site, want)
	}
	return nil
}

// Check tells whether the peer of a connection, also of one that has been open
// for long, is a gateway of our fleet whose certificate is valid and not
// revoked. ErrRevoked is one of the reasons why it may not be.
func (id *Identity) Check(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("peer shows no certificate")
	}
	cert := cs.PeerCertificates[0]
	site, gateway, err := verifySite(id.ca, cert, id.now())
	if err != nil {
		return err
	}
	id.mu.Lock()
	list := id.revoked
	id.mu.Unlock()
	if list.has(site, cert) {
		return fmt.Errorf("site %s, gateway %s: %w", site, gateway, ErrRevoked)
	}
	return nil
}

// PeerSite is the name of the peer of a connection that was made with
// ServerTLS or ClientTLS.
func PeerSite(cs tls.ConnectionState) (site, gateway string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return "", "", errors.New("peer shows no certificate")
	}
	return siteName(cs.PeerCertificates[0])
}
