package pki

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"
)

// Enroller answers requests of joiners and of gateways of the fleet. At a
// gateway other than the founding one it only exchanges revocation lists.
type Enroller struct {
	ID *Identity
	// Peers are the sites that a joiner is told of: the founding one, with
	// its addresses as others see them, first. Nil is none.
	Peers func() []Peer
	// OnJoin, if not nil, is told of each gateway that was let in, with the
	// addresses that it says it listens at (may be none).
	OnJoin func(site, gateway string, addrs []string)
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// Handle answers the one request that comes on s. cs is the state of the
// connection that s is a stream of. It returns after the answer has been
// written; the caller closes s. Its error is for the log: the peer has been
// told, as far as it may know.
func (e *Enroller) Handle(ctx context.Context, s Stream, cs tls.ConnectionState) error {
	stop, err := guard(ctx, s)
	if err != nil {
		return err
	}
	defer stop()
	kind, body, err := readMessage(s)
	if err != nil {
		return fmt.Errorf("reading request: %w", cause(ctx, err))
	}
	kind, answer, err := e.answer(kind, body, cs)
	if err != nil {
		refusal := writeMessage(s, kindRefusal, appendRefusal(nil, err))
		return errors.Join(fmt.Errorf("refused: %w", err), refusal)
	}
	if err := writeMessage(s, kind, answer); err != nil {
		return fmt.Errorf("answering: %w", cause(ctx, err))
	}
	return nil
}

// answer is where it is decided who may ask for what.
func (e *Enroller) answer(kind byte, body []byte, cs tls.ConnectionState) (byte, []byte, error) {
	if cs.NegotiatedProtocol == EnrolProto {
		if kind != kindEnrol {
			return 0, nil, fmt.Errorf("a token is good for joining, not for request %d", kind)
		}
		answer, err := e.enrol(body, cs)
		return kindCert, answer, err
	}
	if err := e.ID.verifyPeer(cs); err != nil {
		return 0, nil, err
	}
	switch kind {
	case kindRenew:
		answer, err := e.renew(body, cs)
		return kindCert, answer, err
	case kindSync:
		_, err := e.ID.ApplyRevocations(body)
		return kindList, e.ID.RevocationList(), err
	}
	return 0, nil, fmt.Errorf("unknown request %d", kind)
}

// enrol signs a joiner's first certificate.
func (e *Enroller) enrol(body []byte, cs tls.ConnectionState) ([]byte, error) {
	t, err := e.ID.joinerToken(cs)
	if err != nil {
		return nil, err
	}
	m, err := parseEnrol(body)
	if err != nil {
		return nil, fmt.Errorf("request to join: %w", err)
	}
	pub, err := csrKey(m.csr)
	if err != nil {
		return nil, err
	}
	if t.Site == e.ID.Site() && m.gateway == e.ID.Gateway() {
		return nil, fmt.Errorf("gateway %s of site %s founded the fleet: choose another name", m.gateway, t.Site)
	}
	if e.ID.list().hasToken(t) {
		return nil, fmt.Errorf("token for site %s: %w", t.Site, ErrRevoked)
	}
	if err := e.ID.spend(t, pub); err != nil {
		return nil, err
	}
	answer, err := e.sign(t.Site, m.gateway, pub)
	if err == nil && e.OnJoin != nil {
		e.OnJoin(t.Site, m.gateway, m.addrs)
	}
	return answer, err
}

// renew signs a new certificate for the peer's own name.
func (e *Enroller) renew(body []byte, cs tls.ConnectionState) ([]byte, error) {
	if e.ID.key == nil {
		return nil, ErrNotFounder
	}
	r := reader{b: body}
	csr := r.bytes32(maxDER)
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("request to renew: %w", err)
	}
	pub, err := csrKey(csr)
	if err != nil {
		return nil, err
	}
	site, gateway, err := PeerSite(cs)
	if err != nil {
		return nil, err
	}
	return e.sign(site, gateway, pub)
}

func (e *Enroller) sign(site, gateway string, pub ed25519.PublicKey) ([]byte, error) {
	cert, err := e.ID.key.issue(site, gateway, pub, e.ID.now())
	if err != nil {
		return nil, err
	}
	if e.Logger != nil {
		e.Logger.Info("certificate issued", "peer", site+"/"+gateway, "serial", Serial(cert), "until", cert.NotAfter)
	}
	m := certAnswer{cert: cert.Raw, ca: e.ID.ca.Raw, list: e.ID.RevocationList()}
	for _, p := range e.peers() {
		// What the joiner would refuse stays here: one bad address in a
		// config must not keep a site out.
		if CheckName(p.Site) == nil && checkAddrs(p.Addrs) == nil && len(m.peers) < maxPeers {
			m.peers = append(m.peers, p)
		}
	}
	return m.append(nil), nil
}

func (e *Enroller) peers() []Peer {
	if e.Peers == nil {
		return nil
	}
	return e.Peers()
}

// csrKey is the key of a certificate request. Its signature shows that the
// sender has the private half; nothing else in the request is looked at.
func csrKey(der []byte) (ed25519.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("certificate request: key is %T, want Ed25519", csr.PublicKey)
	}
	return pub, nil
}

// maxUsed bounds the list of used tokens that have not expired.
const maxUsed = 1000

// usedToken is one line of the file of used tokens.
type usedToken struct {
	Nonce   string    `json:"nonce"`
	Site    string    `json:"site"`
	Key     string    `json:"key"` // SHA-256 of the joiner's public key, hex
	Expires time.Time `json:"expires"`
}

// spend marks a token as used, for the joiner with this key, before anything
// is signed. The same joiner may come again: its answer may have been lost.
func (id *Identity) spend(t Token, pub ed25519.PublicKey) error {
	id.writing.Lock()
	defer id.writing.Unlock()
	path := filepath.Join(id.dir, fileUsed)
	used, err := readUsed(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(pub)
	mine := usedToken{hex.EncodeToString(t.nonce[:]), t.Site, hex.EncodeToString(sum[:]), t.Expires.UTC()}
	for _, u := range used {
		if u.Nonce == mine.Nonce {
			if u.Key == mine.Key {
				return nil
			}
			return ErrTokenUsed
		}
	}
	now := id.now()
	used = slices.DeleteFunc(used, func(u usedToken) bool { return !now.Before(u.Expires) })
	if len(used) >= maxUsed {
		return fmt.Errorf("%d tokens in use, limit %d: wait until some expire", len(used), maxUsed)
	}
	data, err := json.MarshalIndent(append(used, mine), "", " ")
	if err != nil {
		return err
	}
	if err := writeFile(path, data, 0o600); err != nil {
		return fmt.Errorf("marking the token as used: %w", err)
	}
	return nil
}

func readUsed(path string) ([]usedToken, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var used []usedToken
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&used); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return used, nil
}
