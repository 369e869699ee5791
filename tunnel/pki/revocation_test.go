package pki

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRevokeSite(t *testing.T) {
	a, clock := fleet(t)
	b, c := member(t, a, clock, "b"), member(t, a, clock, "c")
	conn, _, cerr, serr := dial(t, forSite(c.ClientTLS(), "b"), b.ServerTLS())
	if cerr != nil || serr != nil {
		t.Fatal(cerr, serr)
	}
	open := conn.ConnectionState() // c's view of b, which stays open

	*clock = clock.Add(time.Hour)
	told := 0
	stop := c.OnRevocation(func() {
		told++
		if err := c.Check(open); !errors.Is(err, ErrRevoked) {
			t.Errorf("open connection: got %v, want %v", err, ErrRevoked)
		}
	})
	if err := a.RevokeSite("b"); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(open); err != nil {
		t.Errorf("c does not know yet: %v", err)
	}
	sync1(t, c, a)
	if told != 1 {
		t.Errorf("told %d times, want 1", told)
	}
	sync1(t, c, a) // nothing new
	stop()
	for _, to := range []*Identity{a, c} {
		if _, _, _, serr := dial(t, b.ClientTLS(), to.ServerTLS()); !errors.Is(serr, ErrRevoked) {
			t.Errorf("%s lets b in: %v", to.Site(), serr)
		}
		if _, _, cerr, _ := dial(t, to.ClientTLS(), b.ServerTLS()); !errors.Is(cerr, ErrRevoked) {
			t.Errorf("%s dials b: %v", to.Site(), cerr)
		}
	}
	// The list outlives the process, and c hands it on to d, which has not met a.
	c = load(t, c.dir, clock)
	d := member(t, a, clock, "d")
	sync1(t, d, c)
	if n, entries := d.Revocations(); n != 1 || len(entries) != 1 || entries[0].Site != "b" {
		t.Errorf("d has list %d: %v", n, entries)
	}
	if told != 1 {
		t.Errorf("told after stop")
	}
	// Let in again.
	*clock = clock.Add(time.Minute)
	again := member(t, a, clock, "b")
	if _, _, cerr, serr := dial(t, again.ClientTLS(), d.ServerTLS()); cerr != nil || serr != nil {
		t.Errorf("b with a new certificate: %v, %v", cerr, serr)
	}
}

// sync1 exchanges lists over a TLS connection from one to the other.
func sync1(t *testing.T, from, to *Identity) {
	t.Helper()
	c, s, cerr, serr := dial(t, from.ClientTLS(), to.ServerTLS())
	if err := errors.Join(cerr, serr); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := (&Enroller{ID: to}).Handle(t.Context(), s, s.ConnectionState()); err != nil {
			t.Error(err)
		}
	})
	if _, err := Sync(t.Context(), c, from); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// TestSyncPushes: the asking side may be the one that knows more.
func TestSyncPushes(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	if err := a.RevokeSite("x"); err != nil {
		t.Fatal(err)
	}
	sync1(t, a, b)
	if n, _ := b.Revocations(); n != 1 {
		t.Errorf("b has list %d, want 1", n)
	}
}

func TestRevokeSerial(t *testing.T) {
	a, clock := fleet(t)
	b, other := member(t, a, clock, "b"), member(t, a, clock, "b")
	if err := a.RevokeSerial(strings.ToUpper(Serial(b.certificate().Leaf))); err != nil {
		t.Fatal(err)
	}
	if _, _, _, serr := dial(t, b.ClientTLS(), a.ServerTLS()); !errors.Is(serr, ErrRevoked) {
		t.Errorf("got %v, want %v", serr, ErrRevoked)
	}
	if _, _, cerr, serr := dial(t, other.ClientTLS(), a.ServerTLS()); cerr != nil || serr != nil {
		t.Errorf("the site's other certificate: %v, %v", cerr, serr)
	}
}

func TestRevokeRefused(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	for what, err := range map[string]error{
		"own site":     a.RevokeSite("a"),
		"own serial":   a.RevokeSerial(Serial(a.certificate().Leaf)),
		"bad name":     a.RevokeSite("B"),
		"bad serial":   a.RevokeSerial("xyz"),
		"no serial":    a.RevokeSerial(""),
		"long serial":  a.RevokeSerial(strings.Repeat("f", 41)),
		"not the CA's": b.RevokeSite("c"),
	} {
		if err == nil {
			t.Errorf("%s: revoked", what)
		}
	}
	if n, _ := a.Revocations(); n != 0 {
		t.Errorf("list number %d", n)
	}
}

// TestRevocationListBounded: old entries go, and the list never outgrows what
// peers accept.
func TestRevocationListBounded(t *testing.T) {
	a, clock := fleet(t)
	now := *clock
	for i := range maxRevocations {
		l := &revocations{number: 1}
		if old := a.list(); old != nil {
			*l = *old
			l.number++
		}
		l.entries = append(l.entries[:len(l.entries):len(l.entries)], Revocation{Serial: serialText(newSerial()), At: now})
		if i < maxRevocations-1 {
			a.adopt(l)
			continue
		}
		if err := l.encode(a.key.key); err != nil {
			t.Fatal(err)
		}
		if got, err := parseRevocations(l.raw, a.ca); err != nil || len(got.entries) != maxRevocations {
			t.Fatalf("the longest list: %v", err)
		}
		a.adopt(l)
	}
	if err := a.RevokeSite("x"); err == nil {
		t.Error("grows without end")
	}
	*clock = clock.Add(certLife + 2*backdate)
	if err := a.RevokeSite("x"); err != nil {
		t.Error(err)
	}
	if n, entries := a.Revocations(); n != maxRevocations+1 || len(entries) != 1 {
		t.Errorf("list %d has %d entries, want 1", n, len(entries))
	}
}

func TestApplyRefuses(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	other, _ := fleet(t)
	for _, id := range []*Identity{a, other} {
		if err := id.RevokeSite("x"); err != nil {
			t.Fatal(err)
		}
	}
	old := a.RevocationList()
	if err := a.RevokeSite("y"); err != nil {
		t.Fatal(err)
	}
	list := a.RevocationList()
	if changed, err := b.ApplyRevocations(list); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if changed, err := b.ApplyRevocations(old); changed || err != nil {
		t.Errorf("an older list: %v, %v", changed, err)
	}
	if changed, err := b.ApplyRevocations(nil); changed || err != nil {
		t.Errorf("no list: %v, %v", changed, err)
	}
	if changed, err := b.ApplyRevocations(other.RevocationList()); changed || err == nil {
		t.Errorf("another fleet's: %v, %v", changed, err)
	}
	for i := range list {
		if _, err := b.ApplyRevocations(flip(list, i)); err == nil {
			t.Errorf("byte %d changed: taken", i)
		}
		if _, err := b.ApplyRevocations(list[:i]); i > 0 && err == nil {
			t.Errorf("cut at %d: taken", i)
		}
	}
	if b.Reload() != nil || !bytes.Equal(b.RevocationList(), list) {
		t.Error("list was lost")
	}
}

// TestReload: another process renews and revokes.
func TestReload(t *testing.T) {
	a, clock := fleet(t)
	running := load(t, a.dir, clock)
	if err := errors.Join(a.RenewSelf(), a.RevokeSite("b")); err != nil {
		t.Fatal(err)
	}
	told := false
	running.OnRevocation(func() { told = true })
	if err := running.Reload(); err != nil || !told {
		t.Errorf("%v, told %v", err, told)
	}
	if n, _ := running.Revocations(); n != 1 || !running.certificate().Leaf.Equal(a.certificate().Leaf) {
		t.Error("not read anew")
	}
	// A certificate of another site in its place is refused, and all stays.
	b := member(t, a, clock, "b")
	if err := writePair(running.dir, b.certificate().Leaf, b.certificate().PrivateKey.(ed25519.PrivateKey)); err != nil {
		t.Fatal(err)
	}
	if err := running.Reload(); err == nil || running.Site() != "a" {
		t.Errorf("became %s, %v", running.Site(), err)
	}
}
