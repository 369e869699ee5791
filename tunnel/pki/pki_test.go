package pki

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet founds one with site a; the clock is what clock points to.
func fleet(t *testing.T) (founder *Identity, clock *time.Time) {
	t.Helper()
	now := time.Now()
	dir := filepath.Join(t.TempDir(), "a")
	if err := initAt(dir, "test", "a", "a1", now); err != nil {
		t.Fatal(err)
	}
	return load(t, dir, &now), &now
}

// load loads with a clock that the test moves.
func load(t *testing.T, dir string, clock *time.Time) *Identity {
	t.Helper()
	id, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	id.now = func() time.Time { return *clock }
	return id
}

// member makes another gateway without a token.
func member(t *testing.T, founder *Identity, clock *time.Time, site string) *Identity {
	t.Helper()
	dir := filepath.Join(t.TempDir(), site)
	if err := founder.Provision(dir, site, site+"1"); err != nil {
		t.Fatal(err)
	}
	return load(t, dir, clock)
}

// dial makes a TLS connection over loopback and reports both sides' errors.
func dial(t *testing.T, client, server *tls.Config) (c, s *tls.Conn, cerr, serr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		raw, err := ln.Accept()
		if err != nil {
			serr = err
			return
		}
		s = tls.Server(raw, server)
		t.Cleanup(func() { s.Close() })
		serr = s.HandshakeContext(t.Context())
	})
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c = tls.Client(raw, client)
	t.Cleanup(func() { c.Close() })
	cerr = c.HandshakeContext(t.Context())
	if cerr != nil {
		c.Close()
	}
	wg.Wait()
	return c, s, cerr, serr
}

// forSite is a client's config that wants one site.
func forSite(c *tls.Config, site string) *tls.Config {
	c = c.Clone()
	c.ServerName = ServerName(site)
	return c
}

func TestPair(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	for _, tt := range []struct{ from, to *Identity }{{a, b}, {b, a}} {
		c, s, cerr, serr := dial(t, forSite(tt.from.ClientTLS(), tt.to.Site()), tt.to.ServerTLS())
		if cerr != nil || serr != nil {
			t.Fatalf("%s to %s: %v, %v", tt.from.Site(), tt.to.Site(), cerr, serr)
		}
		site, gateway, err := PeerSite(s.ConnectionState())
		if err != nil || site != tt.from.Site() || gateway != tt.from.Gateway() {
			t.Errorf("server sees %s, %s, %v", site, gateway, err)
		}
		site, gateway, err = PeerSite(c.ConnectionState())
		if err != nil || site != tt.to.Site() || gateway != tt.to.Gateway() {
			t.Errorf("client sees %s, %s, %v", site, gateway, err)
		}
		if got := c.ConnectionState().Version; got != tls.VersionTLS13 {
			t.Errorf("version %x", got)
		}
	}
}

// TestRefused: whoever must not get in fails in the handshake.
func TestRefused(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	other, _ := fleet(t) // of the same names, with another CA
	foreignToken := mustToken(t, other, "b", time.Hour)

	with := func(c *tls.Config, f func(*tls.Config)) *tls.Config {
		c = c.Clone()
		f(c)
		return c
	}
	anon := with(b.ClientTLS(), func(c *tls.Config) { c.GetClientCertificate = nil })
	tests := []struct {
		name           string
		client, server *tls.Config
		cwant, swant   string // part of the error; "" is none
	}{
		{"no certificate", anon, a.ServerTLS(), "", "certificate"},
		{"another fleet's gateway", with(other.ClientTLS(), func(c *tls.Config) { c.VerifyConnection = nil }), a.ServerTLS(), "", "unknown authority"},
		{"another fleet's gateway as the acceptor", b.ClientTLS(), with(other.ServerTLS(), func(c *tls.Config) { c.ClientAuth = tls.NoClientCert; c.VerifyConnection = nil }), "unknown authority", ""},
		{"TLS 1.2", with(b.ClientTLS(), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), a.ServerTLS(), "version", "version"},
		{"no protocol", with(b.ClientTLS(), func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil }), a.ServerTLS(), "", "protocol"},
		{"another protocol", with(b.ClientTLS(), func(c *tls.Config) { c.NextProtos = []string{"h2"} }), a.ServerTLS(), "no application protocol", "h2"},
		{"another site than wanted", forSite(b.ClientTLS(), "c"), a.ServerTLS(), "want c", ""},
		{"another fleet's token", with(foreignToken.TLS(), func(c *tls.Config) { c.VerifyConnection = nil }), a.ServerTLS(), "", "not one of this fleet"},
		{"a gateway's certificate for joining", with(b.ClientTLS(), func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{EnrolProto}, nil }), a.ServerTLS(), "", "token"},
		{"joining at a gateway without the CA's key", mustToken(t, a, "c", time.Hour).TLS(), b.ServerTLS(), "no application protocol", EnrolProto},
		{"a token for the gateways' protocol", with(mustToken(t, a, "c", time.Hour).TLS(), func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{Proto}, nil }), a.ServerTLS(), "", "unknown authority"},
		{"a token at another fleet", mustToken(t, a, "c", time.Hour).TLS(), other.ServerTLS(), "fingerprint differs", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, cerr, serr := dial(t, tt.client, tt.server)
			for who, e := range map[string]struct {
				err  error
				want string
			}{"client": {cerr, tt.cwant}, "server": {serr, tt.swant}} {
				if e.want != "" && (e.err == nil || !strings.Contains(e.err.Error(), e.want)) {
					t.Errorf("%s: got %v, want %q", who, e.err, e.want)
				}
			}
			if cerr == nil && serr == nil {
				t.Error("nobody refused")
			}
		})
	}
}

func TestExpiredCertificate(t *testing.T) {
	a, clock := fleet(t)
	b := member(t, a, clock, "b")
	if b.RenewDue(*clock) {
		t.Error("renewal due at once")
	}
	*clock = clock.Add(61 * 24 * time.Hour)
	if !b.RenewDue(*clock) {
		t.Error("renewal not due after 61 days")
	}
	if _, _, cerr, serr := dial(t, b.ClientTLS(), a.ServerTLS()); cerr != nil || serr != nil {
		t.Fatal(cerr, serr)
	}
	*clock = clock.Add(30 * 24 * time.Hour)
	if _, _, cerr, serr := dial(t, b.ClientTLS(), a.ServerTLS()); cerr == nil && serr == nil {
		t.Error("certificates are accepted after 91 days")
	}
}

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x", "pki")
	if err := Init(dir, "fleet", "a", "a1"); err != nil {
		t.Fatal(err)
	}
	if err := Init(dir, "fleet", "a", "a1"); err == nil || !strings.Contains(err.Error(), "identity already") {
		t.Errorf("twice: %v", err)
	}
	for name, want := range map[string]os.FileMode{fileCAKey: 0o600, fileSiteKey: 0o600, fileCACert: 0o644, fileSiteCert: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, ".*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	id, err := Load(dir)
	if err != nil || !id.Founder() || id.Site() != "a" || id.Gateway() != "a1" || len(id.Fingerprint()) != 32 {
		t.Errorf("loaded %v, %v", id, err)
	}
	for _, name := range []string{"", "A", "a b", "a/b", "ä", strings.Repeat("a", 33)} {
		if err := Init(t.TempDir(), "fleet", name, "a1"); err == nil {
			t.Errorf("site %q is taken", name)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir, other string)
		want  string
	}{
		{"nothing there", func(t *testing.T, dir, other string) { os.RemoveAll(dir) }, "no such file"},
		{"key readable", func(t *testing.T, dir, other string) { os.Chmod(filepath.Join(dir, fileSiteKey), 0o640) }, "chmod 600"},
		{"CA's key readable", func(t *testing.T, dir, other string) { os.Chmod(filepath.Join(dir, fileCAKey), 0o604) }, "chmod 600"},
		{"another key", func(t *testing.T, dir, other string) {
			os.Rename(filepath.Join(other, fileSiteKey), filepath.Join(dir, fileSiteKey))
		}, "not that of"},
		{"another CA's key", func(t *testing.T, dir, other string) {
			os.Rename(filepath.Join(other, fileCAKey), filepath.Join(dir, fileCAKey))
		}, "not that of ca.crt"},
		{"another CA", func(t *testing.T, dir, other string) {
			os.Remove(filepath.Join(dir, fileCAKey))
			os.Rename(filepath.Join(other, fileCACert), filepath.Join(dir, fileCACert))
		}, "unknown authority"},
		{"no PEM", func(t *testing.T, dir, other string) {
			os.WriteFile(filepath.Join(dir, fileSiteCert), []byte("hello"), 0o644)
		}, "no CERTIFICATE"},
		{"huge", func(t *testing.T, dir, other string) {
			os.WriteFile(filepath.Join(dir, fileSiteCert), make([]byte, maxFile+1), 0o644)
		}, "more than"},
		{"damaged list", func(t *testing.T, dir, other string) {
			os.WriteFile(filepath.Join(dir, fileRevoked), make([]byte, 200), 0o644)
		}, "not signed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, other := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
			if err := errors.Join(Init(dir, "f", "a", "a1"), Init(other, "f", "a", "a1")); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, dir, other)
			if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
