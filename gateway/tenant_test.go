package gateway_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/tunnel"
)

// Kinds of channel, as wire.go has them.
const (
	kindStore = 4
	kindPages = 5
	kindSeed  = 7
)

// moveFor moves db1 for a tenant, over a line so thin that each move is compressed
// with zstd from its beginning, and looks for four bases: what it leaves can be compared.
func (s *site) moveFor(tenant, to string) *gateway.JobReport {
	s.t.Helper()
	j, err := s.g.Migrate(s.t.Context(), gateway.MigrateRequest{VM: "db1", To: to, Tenant: tenant, Rate: 16e6})
	if err != nil {
		s.t.Fatal(err)
	}
	if j = s.wait(j.ID); j.State != gateway.JobDone {
		s.t.Fatalf("move of tenant %q: %s: %s", tenant, j.State, j.Error)
	}
	return j.Report
}

// known is the part of the pages that were not zero and crossed as references.
func known(r *gateway.JobReport) float64 {
	return float64(r.Refs) / float64(r.Pages-r.ZeroPages)
}

// TestTenantsShareNothing moves one VM to and fro for several tenants: what has
// crossed for one helps it on its way back, also after a restart, and is as new as
// ever for another one, by the references and by the bytes on the wire.
func TestTenantsShareNothing(t *testing.T) {
	a, b, _ := newPairWith(t, hvtest.Guest{Memory: 8 << 20}, nil, func(s *site) { s.tenants = []string{"acme", "globex"} })
	first := a.moveFor("acme", "b")
	if back := b.moveFor("acme", "a"); known(back) < 0.5 || back.WireBytes*4 > first.WireBytes {
		t.Errorf("the way back of a tenant: %+v, the way there: %+v", back, first)
	}
	for i, tenant := range []string{"globex", ""} {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		other := from.moveFor(tenant, to.name)
		// The guest has duplicates of its own by now, which cross as references; and
		// levels of zstd differ by 7 per cent.
		if known(other) > 0.3 || other.WireBytes*10 < first.WireBytes*9 {
			t.Errorf("tenant %q gains by what another one has sent: %+v, first move: %+v", tenant, other, first)
		}
	}
	for _, s := range []*site{a, b} {
		s.stop()
		s.start()
	}
	a.waitUp("b")
	b.waitUp("a")
	if again := a.moveFor("acme", "b"); known(again) < 0.5 || again.WireBytes*4 > first.WireBytes {
		t.Errorf("after a restart: %+v, first move: %+v", again, first)
	}
	r, err := a.g.StoreReport(t.Context())
	if err != nil || len(r.Peers) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, tenant := range []string{"", "acme", "globex"} {
		p := r.Peers[i]
		if p.Site != "b" || p.Tenant != tenant || p.Agreed != (tenant == "acme") || p.Agreed && p.Pages == 0 {
			t.Errorf("store %d: %+v", i, p)
		}
	}
	// The default tenant's is where the store of a fleet without tenants is.
	for _, dir := range []string{"b", "_tenants/acme/b", "_tenants/globex/b"} {
		if _, err := os.Stat(filepath.Join(a.dir, "store", dir, "lock")); err != nil {
			t.Error(err)
		}
	}
	if r.Peers[1].Budget > 128<<20/3*2 {
		t.Errorf("budget of one of three tenants: %d bytes", r.Peers[1].Budget)
	}
}

// TestTenantOfHost: a host runs the VMs of its tenant, and no others.
func TestTenantOfHost(t *testing.T) {
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		s.tenants = []string{"acme", "globex"}
		s.hostTenants = map[string]string{"host-a": "acme"}
	})
	_, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Tenant: "globex"})
	if !errors.Is(err, gateway.ErrInvalid) || !strings.Contains(err.Error(), "host host-a is tenant acme's") {
		t.Errorf("got error %v", err)
	}
	a.moveFor("", "b")
	if a.g.TenantStore("b", "acme") == nil || a.g.TenantStore("b", "") != nil {
		t.Error("the move was not its host's tenant's")
	}
	j, err := b.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "a", Tenant: "globex"})
	if err != nil {
		t.Fatal(err)
	}
	if j = b.wait(j.ID); j.State != gateway.JobFailed || !strings.Contains(j.Error, `no host of site a takes VMs of tenant "globex"`) {
		t.Errorf("%s: %s", j.State, j.Error)
	}
}

// TestForeignTenant: a peer cannot make a tenant up, nor get at what was kept for
// one in the name of another.
func TestForeignTenant(t *testing.T) {
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) {
		s.tenants = []string{"acme", "globex"}
		if s.name == "a" {
			s.tenants = append(s.tenants, "umbrella")
		}
	})
	j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Tenant: "umbrella"})
	if err != nil {
		t.Fatal(err)
	}
	if j = a.wait(j.ID); j.State != gateway.JobFailed || !strings.Contains(j.Error, `site b has no tenant "umbrella" in its config`) {
		t.Errorf("%s: %s", j.State, j.Error)
	}
	if _, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b", Tenant: "nobody"}); !errors.Is(err, gateway.ErrNotFound) {
		t.Errorf("got error %v", err)
	}
	a.moveFor("acme", "b")
	a.g.TenantStore("b", "acme")
	theirs := b.g.TenantStore("a", "acme").ID()
	wanted := func(tenant string) string {
		return fmt.Sprintf(`{"version":5,"tenant":%q,"wanted":{"store":%d,"theirs":false,"number":256,"count":1}}`, tenant, theirs)
	}
	for name, tc := range map[string]struct {
		kind   uint16
		header string
		want   string // "": it is answered
	}{
		"unknown":       {kindStore, `{"version":5,"tenant":"umbrella"}`, `site b has no tenant "umbrella"`},
		"a path":        {kindStore, `{"version":5,"tenant":"../acme"}`, `site b has no tenant "../acme"`},
		"pages":         {kindPages, wanted("acme"), ""},
		"other's pages": {kindPages, wanted("globex"), "no store is held in common"},
		"default's":     {kindPages, wanted(""), "no store is held in common"},
		"unknown's":     {kindPages, wanted("umbrella"), `site b has no tenant "umbrella"`},
		"images":        {kindSeed, `{"version":5,"tenant":"acme"}`, "images are of no tenant"},
	} {
		t.Run(name, func(t *testing.T) {
			ch := a.open("b", tunnel.Spec{Kind: tc.kind, Header: []byte(tc.header), Class: tunnel.Urgent})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := ch.CloseSend(ctx); err != nil {
				t.Fatal(err)
			}
			m, err := ch.Recv(ctx)
			if tc.want == "" {
				if err != nil || len(m.Data) == 0 {
					t.Errorf("%d bytes, %v", len(m.Data), err)
				}
				return
			}
			if err == nil && strings.Contains(string(m.Data), tc.want) {
				return // said, not aborted
			}
			if err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %q, %v, want %q", m.Data, err, tc.want)
			}
		})
	}
}

// TestForwardTenants: what comes through the forward of a tenant is known to that
// tenant's forwards, and to no others.
func TestForwardTenants(t *testing.T) {
	a, b, _ := newPairWith(t, hvtest.Guest{}, nil, func(s *site) { s.tenants = []string{"acme", "globex"} })
	stream := ramStream(realPages(t, 1024))
	p := newThrough(t, a, b)
	target := p.out.Addr().String()
	var first int64
	for _, tc := range []struct {
		name, tenant string
		known        bool
	}{{"f1", "acme", false}, {"f2", "acme", true}, {"f3", "globex", false}, {"f4", "", false}, {"f5", "globex", true}} {
		p.listen = filepath.Join(a.run, tc.name)
		if _, err := a.g.AddForward(t.Context(), gateway.Forward{
			Name: tc.name, Listen: "unix:" + p.listen, To: "b", Target: "unix:" + target, Kind: "migration", Tenant: tc.tenant,
		}); err != nil {
			t.Fatal(err)
		}
		if p.send(stream) != sha256.Sum256(stream) {
			t.Fatalf("%s: another stream came out", tc.name)
		}
		all, err := a.g.Forwards(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wire := all[len(all)-2].Wire // the last is "path", of newThrough
		if all[len(all)-2].Name != tc.name {
			t.Fatalf("%+v", all)
		}
		if first == 0 {
			first = wire
		}
		if tc.known != (wire*4 < first) {
			t.Errorf("%s of tenant %q: %d bytes on the wire, %d the first time", tc.name, tc.tenant, wire, first)
		}
	}
	if _, err := a.g.AddForward(t.Context(), gateway.Forward{
		Name: "f6", Listen: "unix:" + filepath.Join(a.run, "f6"), To: "b", Target: "unix:" + target, Tenant: "umbrella",
	}); !errors.Is(err, gateway.ErrNotFound) {
		t.Errorf("got error %v", err)
	}
	h := fmt.Sprintf(`{"version":5,"session":%q,"index":0,"role":"qemu","target":%q,"tenant":"umbrella"}`, someToken, "unix:"+target)
	ch := a.open("b", tunnel.Spec{Kind: kindLeg, Header: []byte(h), Class: tunnel.Bulk})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := ch.Recv(ctx); err == nil || !strings.Contains(err.Error(), `site b has no tenant "umbrella"`) {
		t.Errorf("got error %v", err)
	}
}

// TestTenantKeys: no two tenants hash alike, nor does one as the fleet.
func TestTenantKeys(t *testing.T) {
	k := dedup.Key{1}
	acme := k.For("acme")
	if again := k.For("acme"); again != acme {
		t.Error("the key of a tenant changes")
	}
	if acme == k.For("globex") || acme == k || acme == (dedup.Key{2}).For("acme") || k.For("") == k {
		t.Error("keys of tenants are not their own")
	}
}
