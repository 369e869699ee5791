package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustToken(t *testing.T, founder *Identity, site string, ttl time.Duration) Token {
	t.Helper()
	line, err := founder.CreateToken(site, ttl, "192.0.2.1:7441")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := ParseToken(line)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// join plays a whole enrolment over TLS on loopback.
func join(t *testing.T, e *Enroller, clock *time.Time, req Request) (*Joined, error) {
	t.Helper()
	req.now = func() time.Time { return *clock }
	c, s, cerr, serr := dial(t, req.Token.tls(req.now), e.ID.ServerTLS())
	if cerr != nil || serr != nil {
		return nil, errors.Join(cerr, serr)
	}
	var wg sync.WaitGroup
	var herr error
	wg.Go(func() { herr = e.Handle(t.Context(), s, s.ConnectionState()) })
	joined, err := Enrol(t.Context(), c, req)
	c.Close()
	wg.Wait()
	if (herr == nil) != (err == nil) {
		t.Logf("founder: %v, joiner: %v", herr, err)
	}
	return joined, err
}

func TestJoin(t *testing.T) {
	a, clock := fleet(t)
	if err := a.RevokeSite("z"); err != nil { // so that there is a list to hand on
		t.Fatal(err)
	}
	var told []string
	e := &Enroller{
		ID:     a,
		Peers:  func() []Peer { return []Peer{{"a", []string{"192.0.2.1:7441", "[2001:db8::1]:7441"}}, {"BAD", nil}} },
		OnJoin: func(site, gateway string, addrs []string) { told = append(append(told, site, gateway), addrs...) },
	}
	dir := filepath.Join(t.TempDir(), "b")
	tok := mustToken(t, a, "b", time.Hour)
	joined, err := join(t, e, clock, Request{Dir: dir, Token: tok, Gateway: "b1", Addrs: []string{"b.example:7441"}})
	if err != nil {
		t.Fatal(err)
	}
	want := &Joined{"b", "b1", []Peer{{"a", []string{"192.0.2.1:7441", "[2001:db8::1]:7441"}}}}
	if d := cmp.Diff(joined, want); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(told, []string{"b", "b1", "b.example:7441"}); d != "" {
		t.Error(d)
	}
	b := load(t, dir, clock)
	if b.Founder() || b.Site() != "b" || b.Fingerprint() != a.Fingerprint() {
		t.Errorf("joined as %s, fleet %s", b.Site(), b.Fingerprint())
	}
	if n, _ := b.Revocations(); n != 1 {
		t.Errorf("list number %d came along, want 1", n)
	}
	if _, _, cerr, serr := dial(t, forSite(b.ClientTLS(), "a"), a.ServerTLS()); cerr != nil || serr != nil {
		t.Error(cerr, serr)
	}
	// Once more into the same directory, and with the same token elsewhere.
	if _, err := join(t, e, clock, Request{Dir: dir, Token: tok, Gateway: "b1"}); err == nil {
		t.Error("joined twice")
	}
	other := filepath.Join(t.TempDir(), "thief")
	if _, err := join(t, e, clock, Request{Dir: other, Token: tok, Gateway: "b2"}); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("replay: got %v, want %v", err, ErrTokenUsed)
	}
	// Also after a restart of the founding gateway.
	e.ID = load(t, a.dir, clock)
	if _, err := join(t, e, clock, Request{Dir: other, Token: tok, Gateway: "b2"}); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("replay after a restart: got %v, want %v", err, ErrTokenUsed)
	}
}

// TestJoinAnswerLost: the founder has signed and the link dies. The joiner
// asks again, and no other can.
func TestJoinAnswerLost(t *testing.T) {
	a, clock := fleet(t)
	e := &Enroller{ID: a}
	tok := mustToken(t, a, "b", time.Hour)
	dir := filepath.Join(t.TempDir(), "b")

	c, s, cerr, serr := dial(t, tok.TLS(), a.ServerTLS())
	if cerr != nil || serr != nil {
		t.Fatal(cerr, serr)
	}
	near, far := net.Pipe() // what the joiner writes reaches the founder; the answer does not come back
	var wg sync.WaitGroup
	wg.Go(func() {
		Enrol(t.Context(), near, Request{Dir: dir, Token: tok, Gateway: "b1"})
	})
	kind, body, err := readMessage(far)
	far.Close()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { writeMessage(c, kind, body); c.Close() })
	if err := e.Handle(t.Context(), s, s.ConnectionState()); err != nil {
		t.Logf("founder: %v", err)
	}
	wg.Wait()

	if _, err := join(t, e, clock, Request{Dir: filepath.Join(t.TempDir(), "x"), Token: tok}); !errors.Is(err, ErrTokenUsed) {
		t.Errorf("another joiner: got %v, want %v", err, ErrTokenUsed)
	}
	if _, err := join(t, e, clock, Request{Dir: dir, Token: tok, Gateway: "b1"}); err != nil {
		t.Errorf("the same joiner again: %v", err)
	}
}

func TestJoinRefused(t *testing.T) {
	a, clock := fleet(t)
	e := &Enroller{ID: a}
	newDir := func() string { return filepath.Join(t.TempDir(), "b") }

	t.Run("expired at the joiner", func(t *testing.T) {
		tok := mustToken(t, a, "b", time.Minute)
		later := clock.Add(time.Minute)
		near, _ := net.Pipe()
		_, err := Enrol(t.Context(), near, Request{Dir: newDir(), Token: tok, now: func() time.Time { return later }})
		if !errors.Is(err, ErrTokenExpired) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("expired at the founder", func(t *testing.T) {
		tok := mustToken(t, a, "b", time.Minute)
		early := *clock
		defer func() { *clock = early }()
		*clock = clock.Add(2 * time.Minute)
		_, _, _, serr := dial(t, tok.tls(func() time.Time { return early }), a.ServerTLS())
		if !errors.Is(serr, ErrTokenExpired) {
			t.Errorf("got %v", serr)
		}
	})
	t.Run("changed site, life or secret", func(t *testing.T) {
		for _, change := range []func(*Token){
			func(tok *Token) { tok.Site = "c" },
			func(tok *Token) { tok.Expires = tok.Expires.Add(time.Hour) },
			func(tok *Token) { tok.Issued = tok.Issued.Add(time.Second) },
			func(tok *Token) { tok.secret[3] ^= 1 },
			func(tok *Token) { tok.nonce[3] ^= 1 },
		} {
			tok := mustToken(t, a, "b", time.Hour)
			change(&tok)
			tok, err := ParseToken(tok.Line()) // the checksum is right again
			if err != nil {
				t.Fatal(err)
			}
			if _, err := join(t, e, clock, Request{Dir: newDir(), Token: tok}); err == nil || !strings.Contains(err.Error(), "not one of this fleet") {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("site revoked since", func(t *testing.T) {
		tok := mustToken(t, a, "r", time.Hour)
		if err := a.RevokeSite("r"); err != nil {
			t.Fatal(err)
		}
		if _, err := join(t, e, clock, Request{Dir: newDir(), Token: tok}); !errors.Is(err, ErrRevoked) {
			t.Errorf("got %v", err)
		}
		*clock = clock.Add(time.Minute)
		if _, err := join(t, e, clock, Request{Dir: newDir(), Token: mustToken(t, a, "r", time.Hour)}); err != nil {
			t.Errorf("with a new token: %v", err)
		}
	})
	t.Run("bad gateway name", func(t *testing.T) {
		near, _ := net.Pipe()
		if _, err := Enrol(t.Context(), near, Request{Dir: newDir(), Token: mustToken(t, a, "b", time.Hour), Gateway: "B!"}); err == nil {
			t.Error("taken")
		}
	})
	t.Run("the founder's own name", func(t *testing.T) {
		tok := mustToken(t, a, "a", time.Hour)
		if _, err := join(t, e, clock, Request{Dir: newDir(), Token: tok, Gateway: "a1"}); err == nil {
			t.Error("taken")
		}
		if _, err := join(t, e, clock, Request{Dir: newDir(), Token: tok, Gateway: "a2"}); err != nil {
			t.Errorf("a second gateway of the site: %v", err)
		}
	})
	t.Run("not the founder", func(t *testing.T) {
		b := member(t, a, clock, "b")
		if _, err := b.CreateToken("c", time.Hour, "192.0.2.1:1"); !errors.Is(err, ErrNotFounder) {
			t.Errorf("got %v", err)
		}
	})
}

// TestHandleRefuses sends what no joiner of ours would.
func TestHandleRefuses(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	e := &Enroller{ID: a}
	csr, _ := newCSR(a.key.key)
	tests := []struct {
		name   string
		client *tls.Config
		kind   byte
		body   []byte
		want   string
	}{
		{"renewal with a token", mustToken(t, a, "c", time.Hour).TLS(), kindRenew, nil, "good for joining"},
		{"empty request", mustToken(t, a, "c", time.Hour).TLS(), kindEnrol, nil, "cut short"},
		{"garbage for a CSR", mustToken(t, a, "c", time.Hour).TLS(), kindEnrol, enrolRequest{"c1", []byte("x"), nil}.append(nil), "certificate request"},
		{"forged CSR", mustToken(t, a, "c", time.Hour).TLS(), kindEnrol, enrolRequest{"c1", flip(csr, len(csr)-1), nil}.append(nil), "certificate request"},
		{"gateway that is a path", mustToken(t, a, "c", time.Hour).TLS(), kindEnrol, enrolRequest{"../a", csr, nil}.append(nil), "is none of"},
		{"joining without a token", b.ClientTLS(), kindEnrol, enrolRequest{"c1", csr, nil}.append(nil), "unknown request"},
		{"unknown kind", b.ClientTLS(), 77, nil, "unknown request"},
		{"foreign list", b.ClientTLS(), kindSync, make([]byte, 200), "not signed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, s, cerr, serr := dial(t, tt.client, a.ServerTLS())
			if cerr != nil || serr != nil {
				t.Fatal(cerr, serr)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := e.Handle(t.Context(), s, s.ConnectionState()); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("founder: got %v, want %q", err, tt.want)
				}
			})
			_, err := exchange(t.Context(), c, tt.kind, tt.body, kindCert)
			wg.Wait()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("peer: got %v, want %q", err, tt.want)
			}
		})
	}
}

func flip(b []byte, i int) []byte {
	b = append([]byte(nil), b...)
	b[i] ^= 1
	return b
}

// TestHandleCancelled: a peer that says nothing is left when ctx ends.
func TestHandleCancelled(t *testing.T) {
	a, _ := fleet(t)
	near, far := net.Pipe()
	defer near.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Enroller{ID: a}).Handle(ctx, far, tls.ConnectionState{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestRenew(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	client, server := b.ClientTLS(), a.ServerTLS() // made once, as longhauld does
	*clock = clock.Add(70 * 24 * time.Hour)
	old := b.certificate().Leaf.SerialNumber

	ask := func(from *Identity, cfg *tls.Config, to *Identity) error {
		c, s, cerr, serr := dial(t, cfg, to.ServerTLS())
		if err := errors.Join(cerr, serr); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { (&Enroller{ID: to}).Handle(t.Context(), s, s.ConnectionState()) })
		defer wg.Wait()
		return Renew(t.Context(), c, from)
	}
	if err := ask(a, a.ClientTLS(), b); !errors.Is(err, ErrNotFounder) {
		t.Errorf("asked the wrong gateway: %v", err)
	}
	if err := ask(b, client, a); err != nil {
		t.Fatal(err)
	}
	if err := a.RenewSelf(); err != nil {
		t.Fatal(err)
	}
	if err := b.RenewSelf(); !errors.Is(err, ErrNotFounder) {
		t.Errorf("RenewSelf without the CA's key: %v", err)
	}
	if b.RenewDue(*clock) || b.certificate().Leaf.SerialNumber.Cmp(old) == 0 || a.RenewDue(*clock) {
		t.Error("not renewed")
	}
	*clock = clock.Add(70 * 24 * time.Hour) // the first certificates have expired
	c, _, cerr, serr := dial(t, client, server)
	if cerr != nil || serr != nil {
		t.Fatalf("the old configs do not use the new certificates: %v, %v", cerr, serr)
	}
	if err := b.Check(c.ConnectionState()); err != nil {
		t.Error(err)
	}
	if again := load(t, b.dir, clock); again.Expires() != b.Expires() {
		t.Error("not on disk")
	}
}

// TestRenewalCut kills the renewal between each two of its writes.
func TestRenewalCut(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	fresh := member(t, a, clock, "b") // another pair for the same name
	read := func(dir, name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for cut := range 3 {
		steps := []func(){
			func() { os.WriteFile(filepath.Join(b.dir, fileNextKey), read(fresh.dir, fileSiteKey), 0o600) },
			func() { os.WriteFile(filepath.Join(b.dir, fileSiteCert), read(fresh.dir, fileSiteCert), 0o644) },
		}
		for _, step := range steps[:cut] {
			step()
		}
		got, err := Load(b.dir)
		if err != nil {
			t.Fatalf("cut after %d steps: %v", cut, err)
		}
		want := b.certificate().Leaf
		if cut == 2 {
			want = fresh.certificate().Leaf
		}
		if !got.certificate().Leaf.Equal(want) {
			t.Errorf("cut after %d steps: the wrong certificate", cut)
		}
	}
	if _, err := Load(b.dir); err != nil {
		t.Errorf("loaded again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, fileNextKey)); err == nil {
		t.Error("key of the renewal is left")
	}
}
