package pki

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"time"
)

// A revocation list, signed by the CA. The one with the higher number wins.
//
//	| "LHRV" (4) | Version 1 (1) | Number (8) | Issued (8) | N (2) |
//	| N times: Kind (1) At (8) Len (1) Value | Signature (64) |
//
// Big endian; times in seconds since 1970; Value is a site's name or a serial
// number. The signature is Ed25519 over revocationContext and all before it.
const (
	revocationMagic   = "LHRV"
	revocationVersion = 1
	revocationContext = "longhaul revocation list 1\x00"

	revokeSite   byte = 1 // all certificates of the site issued until At
	revokeSerial byte = 2

	// maxRevocations bounds the list: 42 bytes each make 42 KiB. Entries go
	// when all certificates that they are about have expired.
	maxRevocations = 1000
)

// Revocation is one entry of the list: a site or the serial number of one
// certificate, in hex.
type Revocation struct {
	Site   string
	Serial string
	At     time.Time // when it was revoked; a site's later certificates are good
}

// revocations is a list as received. It is never changed.
type revocations struct {
	number  uint64
	issued  time.Time
	entries []Revocation
	raw     []byte // encoded and signed
}

// has tells whether the list revokes the certificate of the site.
func (l *revocations) has(site string, cert *x509.Certificate) bool {
	if l == nil {
		return false
	}
	serial := serialText(cert.SerialNumber)
	issued := cert.NotBefore.Add(backdate)
	return slices.ContainsFunc(l.entries, func(e Revocation) bool {
		return e.Serial == serial || e.Site == site && !issued.After(e.At)
	})
}

// hasToken tells whether the site was revoked after the token was issued.
func (l *revocations) hasToken(t Token) bool {
	return l != nil && slices.ContainsFunc(l.entries, func(e Revocation) bool {
		return e.Site == t.Site && !t.Issued.After(e.At)
	})
}

func serialText(n *big.Int) string { return hex.EncodeToString(n.Bytes()) }

// Serial is the number of a certificate as RevokeSerial takes it.
func Serial(cert *x509.Certificate) string { return serialText(cert.SerialNumber) }

// encode signs the list.
func (l *revocations) encode(key ed25519.PrivateKey) error {
	b := append([]byte(revocationMagic), revocationVersion)
	b = binary.BigEndian.AppendUint64(b, l.number)
	b = binary.BigEndian.AppendUint64(b, uint64(l.issued.Unix()))
	b = binary.BigEndian.AppendUint16(b, uint16(len(l.entries)))
	for _, e := range l.entries {
		kind, value := revokeSite, []byte(e.Site)
		if e.Site == "" {
			serial, err := hex.DecodeString(e.Serial)
			if err != nil {
				return fmt.Errorf("serial number %.50q: %w", e.Serial, err)
			}
			kind, value = revokeSerial, serial
		}
		b = append(b, kind)
		b = binary.BigEndian.AppendUint64(b, uint64(e.At.Unix()))
		b = appendString8(b, string(value))
	}
	l.raw = append(b, ed25519.Sign(key, append([]byte(revocationContext), b...))...)
	return nil
}

// parseRevocations reads a list and checks its signature.
func parseRevocations(raw []byte, ca *x509.Certificate) (*revocations, error) {
	if len(raw) < ed25519.SignatureSize {
		return nil, errors.New("revocation list is cut short")
	}
	body, sig := raw[:len(raw)-ed25519.SignatureSize], raw[len(raw)-ed25519.SignatureSize:]
	pub := caPublic(ca)
	if pub == nil || !ed25519.Verify(pub, append([]byte(revocationContext), body...), sig) {
		return nil, errors.New("revocation list is not signed by the fleet's CA")
	}
	l := &revocations{raw: slices.Clone(raw)}
	if err := l.decode(body); err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return l, nil
}

func (l *revocations) decode(body []byte) error {
	r := reader{b: body}
	if string(r.take(4)) != revocationMagic || r.byte() != revocationVersion {
		return errors.New("unknown format")
	}
	l.number = r.uint64()
	l.issued = time.Unix(int64(r.uint64()), 0)
	n := int(r.uint16())
	if n > maxRevocations {
		return fmt.Errorf("%d entries, limit %d", n, maxRevocations)
	}
	for range n {
		kind, at := r.byte(), time.Unix(int64(r.uint64()), 0)
		value := r.string8()
		switch {
		case r.err != nil:
			return r.err
		case kind == revokeSite && CheckName(value) == nil:
			l.entries = append(l.entries, Revocation{Site: value, At: at})
		case kind == revokeSerial && len(value) > 0 && len(value) <= 20:
			l.entries = append(l.entries, Revocation{Serial: hex.EncodeToString([]byte(value)), At: at})
		default:
			return fmt.Errorf("entry of kind %d: %.40q", kind, value)
		}
	}
	return r.end()
}

// readRevocations reads the file; nil when there is none.
func readRevocations(path string, ca *x509.Certificate) (*revocations, error) {
	raw, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := parseRevocations(raw, ca)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// RevokeSite revokes all certificates that the site has now, and its tokens
// that have not been used. The site can be let in again with a new token. It
// needs the CA's key; other gateways learn of it by Sync.
func (id *Identity) RevokeSite(site string) error {
	if err := CheckName(site); err != nil {
		return err
	}
	if site == id.Site() {
		return fmt.Errorf("site %s founded the fleet: revoking it would end the fleet", site)
	}
	return id.revoke(Revocation{Site: site})
}

// RevokeSerial revokes one certificate by its serial number in hex.
func (id *Identity) RevokeSerial(serial string) error {
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
		return fmt.Errorf("serial number %.50q: want 1 to 40 hex digits", serial)
	}
	if n.Cmp(id.certificate().Leaf.SerialNumber) == 0 {
		return errors.New("this is the founding gateway's own certificate")
	}
	return id.revoke(Revocation{Serial: serialText(n)})
}

func (id *Identity) revoke(e Revocation) error {
	if id.key == nil {
		return ErrNotFounder
	}
	id.writing.Lock()
	defer id.writing.Unlock()
	now := id.now().Truncate(time.Second)
	e.At = now
	next := &revocations{number: 1, issued: now}
	if old := id.list(); old != nil {
		next.number = old.number + 1
		next.entries = slices.Clone(old.entries)
	}
	next.entries = slices.DeleteFunc(next.entries, func(o Revocation) bool {
		return o.At.Add(certLife+backdate).Before(now) || o.Site == e.Site && o.Serial == e.Serial
	})
	if len(next.entries) >= maxRevocations {
		return fmt.Errorf("%d revocations already: revoke whole sites", len(next.entries))
	}
	next.entries = append(next.entries, e)
	if err := next.encode(id.key.key); err != nil {
		return err
	}
	return id.store(next)
}

// store keeps a list on disk and then uses it. The caller holds writing.
func (id *Identity) store(l *revocations) error {
	if err := writeFile(filepath.Join(id.dir, fileRevoked), l.raw, 0o644); err != nil {
		return fmt.Errorf("keeping the revocation list: %w", err)
	}
	id.adopt(l)
	return nil
}

// adopt uses a list if it is newer, and tells those who wish to know.
func (id *Identity) adopt(l *revocations) {
	id.mu.Lock()
	if l == nil || id.revoked != nil && l.number <= id.revoked.number {
		id.mu.Unlock()
		return
	}
	id.revoked = l
	var tell []*func()
	for f := range id.watchers {
		tell = append(tell, f)
	}
	id.mu.Unlock()
	for _, f := range tell {
		(*f)()
	}
}

func (id *Identity) list() *revocations {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.revoked
}

// Revocations are the entries of the list, and its number; 0 is no list.
func (id *Identity) Revocations() (number uint64, entries []Revocation) {
	l := id.list()
	if l == nil {
		return 0, nil
	}
	return l.number, slices.Clone(l.entries)
}

// RevocationList is the list as ApplyRevocations of another gateway takes it;
// nil when there is none.
func (id *Identity) RevocationList() []byte {
	if l := id.list(); l != nil {
		return slices.Clone(l.raw)
	}
	return nil
}

// ApplyRevocations takes a list that any peer has sent. It is used if the CA
// signed it and if its number is higher than that of ours. An empty list is
// none.
func (id *Identity) ApplyRevocations(raw []byte) (changed bool, err error) {
	if len(raw) == 0 {
		return false, nil
	}
	l, err := parseRevocations(raw, id.ca)
	if err != nil {
		return false, err
	}
	id.writing.Lock()
	defer id.writing.Unlock()
	if old := id.list(); old != nil && l.number <= old.number {
		return false, nil
	}
	return true, id.store(l)
}

// OnRevocation has f called after each change of the list, until stop is
// called. f may call Check; it must not call what changes the list.
func (id *Identity) OnRevocation(f func()) (stop func()) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.watchers[&f] = struct{}{}
	return func() {
		id.mu.Lock()
		defer id.mu.Unlock()
		delete(id.watchers, &f)
	}
}
