package pki

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"
)

// exchangeTime bounds one request with its answer: ten round trips of a bad
// WAN. It also ends a peer that sends a byte now and then.
const exchangeTime = 15 * time.Second

// Stream carries one request and its answer: a QUIC stream, a tls.Conn.
type Stream interface {
	io.ReadWriter
	SetDeadline(t time.Time) error
}

// Request asks to join a fleet.
type Request struct {
	Dir     string // state directory to make; empty is DefaultDir
	Token   Token
	Gateway string   // name within the site; empty is "gw1"
	Addrs   []string // host:port where this gateway will listen; may be none

	now func() time.Time // time.Now but in tests
}

// Joined is what a joiner learns.
type Joined struct {
	Site, Gateway string
	Peers         []Peer // sites to dial, the founding one first
}

// Enrol joins: over a connection that was made with Token.TLS it gets a
// certificate for a key made here, and writes the state directory, which may
// then be loaded. Asked again with the same Dir after a failure, it uses the
// same key, which the token then still is good for.
func Enrol(ctx context.Context, s Stream, req Request) (*Joined, error) {
	if req.now == nil {
		req.now = time.Now
	}
	if req.Dir == "" {
		req.Dir = DefaultDir
	}
	if req.Gateway == "" {
		req.Gateway = "gw1"
	}
	if now := req.now(); !now.Before(req.Token.Expires) {
		return nil, fmt.Errorf("%w: %v ago", ErrTokenExpired, now.Sub(req.Token.Expires).Round(time.Second))
	}
	key, err := joinerKey(req.Dir)
	if err != nil {
		return nil, err
	}
	csr, err := newCSR(key)
	if err != nil {
		return nil, err
	}
	m := enrolRequest{req.Gateway, csr, req.Addrs}
	if _, err := parseEnrol(m.append(nil)); err != nil { // our own input, checked as the founder will
		return nil, err
	}
	body, err := exchange(ctx, s, kindEnrol, m.append(nil), kindCert)
	if err != nil {
		return nil, fmt.Errorf("asking to join: %w", err)
	}
	return req.finish(body, key)
}

// joinerKey makes the key, or finds that of an attempt that was cut short.
func joinerKey(dir string) (ed25519.PrivateKey, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fileSiteKey)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, key, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

func newCSR(key ed25519.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// finish checks the answer and writes it down.
func (req Request) finish(body []byte, key ed25519.PrivateKey) (*Joined, error) {
	m, err := parseCert(body)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	ca, err := x509.ParseCertificate(m.ca)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if fingerprint(ca) != req.Token.fingerprint {
		return nil, errors.New("answer: the CA is not the one that the token is for")
	}
	cert, err := checkAnswer(ca, m.cert, key, req.now())
	if err != nil {
		return nil, err
	}
	if site, gateway, _ := siteName(cert); site != req.Token.Site || gateway != req.Gateway {
		return nil, fmt.Errorf("answer: certificate is for site %s, gateway %s, want %s, %s", site, gateway, req.Token.Site, req.Gateway)
	}
	if len(m.list) > 0 {
		if _, err := parseRevocations(m.list, ca); err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(req.Dir, fileRevoked), m.list, 0o644); err != nil {
			return nil, err
		}
	}
	if err := save(req.Dir, ca, cert, key); err != nil {
		return nil, err
	}
	return &Joined{req.Token.Site, req.Gateway, m.peers}, nil
}

// checkAnswer checks that a certificate is of the CA, for our key, and valid.
func checkAnswer(ca *x509.Certificate, der []byte, key ed25519.PrivateKey, now time.Time) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if _, _, err := verifySite(ca, cert, now); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if !fits(cert, key) {
		return nil, errors.New("answer: certificate is for another key")
	}
	return cert, nil
}

// Renew gets a new certificate, for a new key, from the founding gateway over
// a stream of an authenticated connection, and uses it from now on.
// ErrNotFounder: the peer is not the one to ask.
func Renew(ctx context.Context, s Stream, id *Identity) error {
	id.renewing.Lock()
	defer id.renewing.Unlock()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	csr, err := newCSR(key)
	if err != nil {
		return err
	}
	body, err := exchange(ctx, s, kindRenew, appendBytes32(nil, csr), kindCert)
	if err != nil {
		return fmt.Errorf("asking for renewal: %w", err)
	}
	m, err := parseCert(body)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	cert, err := checkAnswer(id.ca, m.cert, key, id.now())
	if err != nil {
		return err
	}
	return id.replace(cert, key)
}

// RenewSelf renews the founding gateway's own certificate.
func (id *Identity) RenewSelf() error {
	if id.key == nil {
		return ErrNotFounder
	}
	id.renewing.Lock()
	defer id.renewing.Unlock()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	cert, err := id.key.issue(id.Site(), id.Gateway(), key.Public().(ed25519.PublicKey), id.now())
	if err != nil {
		return err
	}
	return id.replace(cert, key)
}

// replace puts a renewed certificate and its key on disk and to use. Of the
// two files, site.crt is the one that decides: see readPair.
func (id *Identity) replace(cert *x509.Certificate, key ed25519.PrivateKey) error {
	site, gateway, err := siteName(cert)
	if err != nil {
		return err
	}
	if site != id.Site() || gateway != id.Gateway() {
		return fmt.Errorf("renewed certificate is for site %s, gateway %s, not for us", site, gateway)
	}
	if err := writePair(id.dir, cert, key); err != nil {
		return err
	}
	return id.use(cert, key)
}

// Sync exchanges revocation lists with any gateway over a stream of an
// authenticated connection: afterwards both have the newer one.
func Sync(ctx context.Context, s Stream, id *Identity) (changed bool, err error) {
	body, err := exchange(ctx, s, kindSync, id.RevocationList(), kindList)
	if err != nil {
		return false, fmt.Errorf("exchanging revocation lists: %w", err)
	}
	return id.ApplyRevocations(body)
}

// exchange sends a request and reads the answer, which must be of kind want.
func exchange(ctx context.Context, s Stream, kind byte, body []byte, want byte) ([]byte, error) {
	stop, err := guard(ctx, s)
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := writeMessage(s, kind, body); err != nil {
		return nil, cause(ctx, err)
	}
	got, answer, err := readMessage(s)
	switch {
	case err != nil:
		return nil, cause(ctx, err)
	case got == kindRefusal:
		return nil, parseRefusal(answer)
	case got != want:
		return nil, fmt.Errorf("answer is of kind %d, want %d", got, want)
	}
	return answer, nil
}

// guard bounds the use of s by exchangeTime and by ctx, until stop is called.
func guard(ctx context.Context, s Stream) (stop func(), err error) {
	if err := s.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		return nil, err
	}
	unhook := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	return func() { unhook(); s.SetDeadline(time.Time{}) }, nil
}

// cause prefers the reason why ctx ended to the failed read that it made.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	var alert tls.AlertError
	if errors.As(err, &alert) {
		return fmt.Errorf("peer refuses us in the handshake: %w", err)
	}
	return err
}
