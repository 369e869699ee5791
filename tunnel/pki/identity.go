package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrNotFounder is returned for what needs the CA's key, which only the
// gateway that founded the fleet has.
var ErrNotFounder = errors.New("this gateway did not found the fleet: it has no ca.key")

// Identity is who this gateway is and whom it trusts. All methods are safe for
// concurrent use.
type Identity struct {
	// Constant after Load.
	dir string
	ca  *x509.Certificate
	key *authority       // nil but at the founding gateway
	now func() time.Time // time.Now but in tests

	renewing sync.Mutex // one renewal at a time; held across I/O; before mu

	mu       sync.Mutex // guards what follows
	cert     tls.Certificate
	site     string
	gateway  string
	revoked  *revocations
	watchers map[*func()]struct{}

	writing sync.Mutex // one writer of the lists at a time; held across I/O; before mu
}

// Init founds a fleet in dir, which must hold no identity yet: it makes the CA
// and the first gateway's certificate.
func Init(dir, fleet, site, gateway string) error {
	return initAt(dir, fleet, site, gateway, time.Now())
}

func initAt(dir, fleet, site, gateway string, now time.Time) error {
	if err := errors.Join(CheckName(fleet), CheckName(site), CheckName(gateway)); err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	ca, err := newAuthority(fleet, now)
	if err != nil {
		return err
	}
	// site.crt, which marks a finished identity, comes last.
	if err := writeKey(filepath.Join(dir, fileCAKey), ca.key); err != nil {
		return err
	}
	return ca.provision(dir, site, gateway, now)
}

// makeDir makes the state directory and refuses one that is in use.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{fileSiteCert, fileCAKey} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: this gateway has an identity already", filepath.Join(dir, name))
		}
	}
	return nil
}

// provision writes a whole identity into dir.
func (a *authority) provision(dir, site, gateway string, now time.Time) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	cert, err := a.issue(site, gateway, key.Public().(ed25519.PublicKey), now)
	if err != nil {
		return err
	}
	return save(dir, a.cert, cert, key)
}

// save writes what every gateway has. The certificate comes last.
func save(dir string, ca, cert *x509.Certificate, key ed25519.PrivateKey) error {
	if err := writeKey(filepath.Join(dir, fileSiteKey), key); err != nil {
		return err
	}
	if err := writeCert(filepath.Join(dir, fileCACert), ca.Raw); err != nil {
		return err
	}
	return writeCert(filepath.Join(dir, fileSiteCert), cert.Raw)
}

// Provision makes an identity of another gateway in dir, without a token: for
// a lab, or to be carried to the other machine by hand. It needs the CA's key.
func (id *Identity) Provision(dir, site, gateway string) error {
	if id.key == nil {
		return ErrNotFounder
	}
	if err := errors.Join(CheckName(site), CheckName(gateway)); err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	return id.key.provision(dir, site, gateway, id.now())
}

// Load reads the identity in dir. An expired certificate loads, so that a
// gateway can say so; its handshakes fail.
func Load(dir string) (*Identity, error) {
	id := &Identity{dir: dir, now: time.Now, watchers: map[*func()]struct{}{}}
	ca, err := readCert(filepath.Join(dir, fileCACert))
	if err != nil {
		return nil, err
	}
	id.ca = ca
	switch key, err := readKey(filepath.Join(dir, fileCAKey)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !bytes.Equal(key.Public().(ed25519.PublicKey), caPublic(ca)):
		return nil, fmt.Errorf("%s: key is not that of ca.crt", filepath.Join(dir, fileCAKey))
	default:
		id.key = &authority{ca, key}
	}
	return id, id.Reload()
}

// Reload reads certificate, key and revocation list anew, for when another
// process has changed them. On an error all stays as it was.
func (id *Identity) Reload() error {
	cert, key, err := readPair(id.dir)
	if err != nil {
		return err
	}
	list, err := readRevocations(filepath.Join(id.dir, fileRevoked), id.ca)
	if err != nil {
		return err
	}
	if err := id.use(cert, key); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(id.dir, fileSiteCert), err)
	}
	id.adopt(list)
	return nil
}

// use makes cert the one that handshakes show from now on.
func (id *Identity) use(cert *x509.Certificate, key ed25519.PrivateKey) error {
	// Validity is the peer's business: it is not checked here.
	site, gateway, err := verifySite(id.ca, cert, cert.NotBefore)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.site != "" && id.site != site {
		return fmt.Errorf("certificate is for site %s, this gateway is of site %s", site, id.site)
	}
	id.site, id.gateway = site, gateway
	// The CA goes along: who joins knows only its fingerprint.
	id.cert = tls.Certificate{Certificate: [][]byte{cert.Raw, id.ca.Raw}, PrivateKey: key, Leaf: cert}
	return nil
}

// Site is the name of this gateway's site.
func (id *Identity) Site() string { id.mu.Lock(); defer id.mu.Unlock(); return id.site }

// Gateway is the name of this gateway within its site.
func (id *Identity) Gateway() string { id.mu.Lock(); defer id.mu.Unlock(); return id.gateway }

// Founder tells whether this gateway has the CA's key.
func (id *Identity) Founder() bool { return id.key != nil }

// Expires is when this gateway's certificate ends.
func (id *Identity) Expires() time.Time { return id.certificate().Leaf.NotAfter }

// RenewDue tells whether two thirds of the certificate's life are over.
func (id *Identity) RenewDue(now time.Time) bool {
	leaf := id.certificate().Leaf
	return !now.Before(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3))
}

// Fingerprint is that of the fleet's CA, in hex, as people compare it.
func (id *Identity) Fingerprint() string {
	fp := fingerprint(id.ca)
	return hex.EncodeToString(fp[:])
}

// FleetKey is a key for a purpose that all gateways of the fleet have, and that is
// another one in every fleet. It is made of the CA's certificate, which who joins
// or connects may see: it tells fleets apart, and is no secret.
func (id *Identity) FleetKey(purpose string) (key [sha256.Size]byte) {
	mac := hmac.New(sha256.New, id.ca.Raw)
	mac.Write([]byte(purpose))
	mac.Sum(key[:0])
	return key
}

func (id *Identity) certificate() *tls.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	cert := id.cert
	return &cert
}

// fingerprintSize: 128 bits; finding another CA with the same takes 2^128
// tries. A collision would have to be made by who makes the CA.
const fingerprintSize = 16

func fingerprint(ca *x509.Certificate) [fingerprintSize]byte {
	sum := sha256.Sum256(ca.Raw)
	return [fingerprintSize]byte(sum[:])
}

// caPublic is the CA's key; nil if it is none of ours.
func caPublic(ca *x509.Certificate) ed25519.PublicKey {
	pub, _ := ca.PublicKey.(ed25519.PublicKey)
	return pub
}
