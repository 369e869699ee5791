package pki

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

const (
	// caLife outlives the machines; a fleet that lives longer starts anew.
	caLife = 20 * 365 * 24 * time.Hour
	// certLife limits what a stolen key is worth; renewal is automatic.
	certLife = 90 * 24 * time.Hour
	// backdate keeps a certificate valid at a peer whose clock is behind.
	backdate = time.Hour
)

// authority is the CA with its key, which only the founding gateway has.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// newAuthority makes a fleet's CA. It signs leaves only.
func newAuthority(fleet string, now time.Time) (*authority, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "longhaul fleet " + fleet},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(tmpl, tmpl, key.Public().(ed25519.PublicKey), key)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key}, nil
}

// issue signs a gateway's certificate.
func (a *authority) issue(site, gateway string, pub ed25519.PublicKey, now time.Time) (*x509.Certificate, error) {
	return sign(leaf(nameURI(hostSite, site, gateway), now, now.Add(certLife)), a.cert, pub, a.key)
}

// tokenSecret derives what only the CA and the holder of a token know from
// what the token says in clear.
func (a *authority) tokenSecret(clear []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, a.key.Seed(), nil, "longhaul join token 1\x00"+string(clear), secretSize)
}

// leaf is the template of all certificates that are no CA.
func leaf(name *url.URL, now, end time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: name.Path[1:]},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{name},
	}
}

func sign(tmpl, parent *x509.Certificate, pub ed25519.PublicKey, key ed25519.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// newSerial is 127 random bits: unique, positive, within the 20 bytes of RFC
// 5280, section 4.1.2.2.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails, crypto/rand
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// verifySite checks that cert is a gateway's, of this CA, and valid at now.
func verifySite(ca, cert *x509.Certificate, now time.Time) (site, gateway string, err error) {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err = cert.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return "", "", err
	}
	if cert.IsCA {
		return "", "", fmt.Errorf("certificate is a CA's, not a gateway's")
	}
	return siteName(cert)
}
