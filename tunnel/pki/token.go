package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Errors about tokens by which callers decide.
var (
	ErrTokenExpired = errors.New("token has expired")
	ErrTokenUsed    = errors.New("token has been used already")
)

const (
	tokenPrefix = "lh1-" // the number is the version of all that follows
	nonceSize   = 8      // bytes; tells a fleet's tokens apart
	secretSize  = 16     // bytes; 2^128 tries, each of them a handshake
	sumSize     = 4      // bytes; against typing errors, not against attackers
	maxAddrs    = 8      // addresses of a gateway
	maxAddr     = 255    // bytes of one

	// maxTokenLine is far more than the longest token: it bounds the work on
	// a file that somebody took for one.
	maxTokenLine = 4096
)

// MaxTokenLife is how long a token may lie about.
const MaxTokenLife = 30 * 24 * time.Hour

// Token lets one gateway of a site into the fleet, once. As a line:
//
//	"lh1-" base64url of
//	| Nonce (8) | Issued (4) | Life (4) | Fingerprint (16) | Secret (16) |
//	| Len (1) Site | N (1), N times: Len (1) Addr | Sum (4) |
//
// Big endian; Issued is in seconds since 1970, Life in seconds; Sum is the
// start of SHA-256 over all before.
type Token struct {
	Site    string    // that the joiner will be of
	Addrs   []string  // host:port of the founding gateway, 1 to 8
	Issued  time.Time // to the second
	Expires time.Time

	nonce       [nonceSize]byte
	fingerprint [fingerprintSize]byte
	secret      [secretSize]byte
}

// CreateToken makes a token for a gateway of site, valid for ttl (to the
// second, 30 days at most), that finds this gateway at addrs. Nothing is kept
// of it here. It needs the CA's key.
func (id *Identity) CreateToken(site string, ttl time.Duration, addrs ...string) (string, error) {
	if id.key == nil {
		return "", ErrNotFounder
	}
	if err := errors.Join(CheckName(site), checkAddrs(addrs)); err != nil {
		return "", err
	}
	if ttl = ttl.Truncate(time.Second); ttl < time.Second || ttl > MaxTokenLife {
		return "", fmt.Errorf("life of token %v: want 1s to %v", ttl, MaxTokenLife)
	}
	t := Token{Site: site, Addrs: addrs, Issued: id.now().Truncate(time.Second), fingerprint: fingerprint(id.ca)}
	t.Expires = t.Issued.Add(ttl)
	rand.Read(t.nonce[:]) // never fails, crypto/rand
	secret, err := id.key.tokenSecret([]byte(t.clear()))
	if err != nil {
		return "", err
	}
	copy(t.secret[:], secret)
	return t.Line(), nil
}

func checkAddrs(addrs []string) error {
	if len(addrs) == 0 || len(addrs) > maxAddrs {
		return fmt.Errorf("%d addresses, want 1 to %d", len(addrs), maxAddrs)
	}
	for _, addr := range addrs {
		if err := checkAddr(addr); err != nil {
			return err
		}
	}
	return nil
}

func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 {
		return fmt.Errorf("address %.80q: port is not 1 to 65535", addr)
	}
	plain := func(r rune) bool { return r > ' ' && r < 0x7f }
	if host == "" || len(addr) > maxAddr || strings.ContainsFunc(addr, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("address %.80q: want host:port in plain ASCII, %d bytes at most", addr, maxAddr)
	}
	return nil
}

// Line is the token as it is handed over. It is a secret until it is used.
func (t Token) Line() string {
	b := append([]byte(nil), t.nonce[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Issued.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(t.Expires.Sub(t.Issued)/time.Second))
	b = append(b, t.fingerprint[:]...)
	b = append(b, t.secret[:]...)
	b = appendString8(b, t.Site)
	b = append(b, byte(len(t.Addrs)))
	for _, addr := range t.Addrs {
		b = appendString8(b, addr)
	}
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:sumSize]...))
}

// String tells what the token is for, without its secret.
func (t Token) String() string {
	return fmt.Sprintf("token for site %s until %s", t.Site, t.Expires.UTC().Format(time.RFC3339))
}

// GoString is String: no way of printing shows the secret.
func (t Token) GoString() string { return t.String() }

// ParseToken reads a line that CreateToken gave; space around it is ignored.
// Whether the fleet accepts it only the founding gateway can tell.
func ParseToken(line string) (Token, error) {
	t, err := parseToken(line)
	if err != nil {
		return Token{}, fmt.Errorf("join token: %w", err)
	}
	return t, nil
}

func parseToken(line string) (t Token, err error) {
	line = strings.TrimSpace(line)
	text, ok := strings.CutPrefix(line, tokenPrefix)
	if !ok {
		return t, fmt.Errorf("does not begin with %q", tokenPrefix)
	}
	if len(line) > maxTokenLine {
		return t, fmt.Errorf("has %d characters, more than any token", len(line))
	}
	if strings.ContainsAny(text, "\r\n") {
		return t, errors.New("is more than one line")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return t, fmt.Errorf("is damaged: %w", err)
	}
	if len(raw) < sumSize {
		return t, errors.New("is cut short")
	}
	body, want := raw[:len(raw)-sumSize], raw[len(raw)-sumSize:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:sumSize], want) {
		return t, errors.New("is damaged: its checksum does not match; copy the whole line")
	}
	return decodeToken(body)
}

func decodeToken(body []byte) (t Token, err error) {
	r := reader{b: body}
	copy(t.nonce[:], r.take(nonceSize))
	issued, life := r.uint32(), r.uint32()
	copy(t.fingerprint[:], r.take(fingerprintSize))
	copy(t.secret[:], r.take(secretSize))
	t.Site = r.string8()
	t.Addrs = r.addrs()
	if err := r.end(); err != nil {
		return t, err
	}
	t.Issued = time.Unix(int64(issued), 0)
	t.Expires = t.Issued.Add(time.Duration(life) * time.Second)
	if d := t.Expires.Sub(t.Issued); d <= 0 || d > MaxTokenLife {
		return t, fmt.Errorf("has a life of %v", d)
	}
	return t, errors.Join(CheckName(t.Site), checkAddrs(t.Addrs))
}

// clear is what a token's certificate says of it, and what its secret is
// derived from.
func (t Token) clear() string {
	return strings.Join(t.parts(), "/")
}

func (t Token) parts() []string {
	return []string{t.Site, hex.EncodeToString(t.nonce[:]),
		strconv.FormatInt(t.Issued.Unix(), 10), strconv.FormatInt(t.Expires.Unix(), 10)}
}

// signer is the key that the holder of the token proves to have. SHA-256
// widens the secret to a seed; the secret is random, so no slow hash is needed.
func (t Token) signer() ed25519.PrivateKey {
	seed := sha256.Sum256(append([]byte("longhaul join token key 1\x00"), t.secret[:]...))
	return ed25519.NewKeyFromSeed(seed[:])
}

// TLS is for dialling the founding gateway with ALPN EnrolProto. It accepts a
// gateway of the fleet whose CA has the token's fingerprint, and nobody else.
func (t Token) TLS() *tls.Config { return t.tls(time.Now) }

func (t Token) tls(now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{EnrolProto},
		Time:               now,
		ServerName:         "enrol" + serverSuffix, // TLS wants one; nobody looks at it
		InsecureSkipVerify: true,                   // verifyFounder checks the chain
		VerifyConnection:   func(cs tls.ConnectionState) error { return t.verifyFounder(cs, now()) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.certificate(now())
		},
	}
}

// certificate is the token's, signed by its own key.
func (t Token) certificate(now time.Time) (*tls.Certificate, error) {
	key := t.signer()
	tmpl := leaf(nameURI(hostEnrol, t.parts()...), now, t.Expires)
	cert, err := sign(tmpl, tmpl, key.Public().(ed25519.PublicKey), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// verifyFounder checks that the peer belongs to the fleet of the token. That
// it has the CA's key shows in the certificate that it will answer with.
func (t Token) verifyFounder(cs tls.ConnectionState, now time.Time) error {
	if cs.NegotiatedProtocol != EnrolProto {
		return fmt.Errorf("peer speaks protocol %q, want %q", cs.NegotiatedProtocol, EnrolProto)
	}
	i := slices.IndexFunc(cs.PeerCertificates, func(c *x509.Certificate) bool {
		return fingerprint(c) == t.fingerprint
	})
	if i < 0 {
		return errors.New("this is not the fleet that the token is for: the CA's fingerprint differs")
	}
	_, _, err := verifySite(cs.PeerCertificates[i], cs.PeerCertificates[0], now)
	return err
}

// verifyJoiner checks in the handshake that the peer holds a token of ours
// that has not expired.
func (id *Identity) verifyJoiner(cs tls.ConnectionState) error {
	_, err := id.joinerToken(cs)
	return err
}

// joinerToken recognises the token by which the peer of an enrolment came in.
// Its addresses are not known here.
func (id *Identity) joinerToken(cs tls.ConnectionState) (t Token, err error) {
	if id.key == nil {
		return t, ErrNotFounder
	}
	if cs.NegotiatedProtocol != EnrolProto || len(cs.PeerCertificates) != 1 {
		return t, errors.New("peer shows no token's certificate")
	}
	cert := cs.PeerCertificates[0]
	if t, err = parseClear(cert); err != nil {
		return t, err
	}
	secret, err := id.key.tokenSecret([]byte(t.clear()))
	if err != nil {
		return t, err
	}
	copy(t.secret[:], secret)
	// TLS has checked that the peer has the private half.
	if pub, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(t.signer().Public()) {
		return t, errors.New("token is not one of this fleet")
	}
	if now := id.now(); !now.Before(t.Expires) {
		return t, ErrTokenExpired
	}
	return t, nil
}

// parseClear reads a token's certificate. Only the one spelling that clear
// gives is taken, since the secret is derived from it.
func parseClear(cert *x509.Certificate) (t Token, err error) {
	parts, err := certName(cert, hostEnrol, 4)
	if err != nil {
		return t, err
	}
	if err := CheckName(parts[0]); err != nil {
		return t, err
	}
	nonce, err1 := hex.DecodeString(parts[1])
	issued, err2 := strconv.ParseUint(parts[2], 10, 32)
	expires, err3 := strconv.ParseUint(parts[3], 10, 33)
	if err := errors.Join(err1, err2, err3); err != nil {
		return t, err
	}
	t.Site = parts[0]
	copy(t.nonce[:], nonce)
	t.Issued, t.Expires = time.Unix(int64(issued), 0), time.Unix(int64(expires), 0)
	if !slices.Equal(t.parts(), parts) {
		return t, errors.New("certificate names no token")
	}
	return t, nil
}
