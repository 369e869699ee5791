package gateway

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
)

// Tenants share gateways and links, and no content: what crossed for one is never
// referred to for another, nor told to anybody, so that nobody learns by the size
// or the time of a move what others have (reliability.md, C.1 e). Each has a store
// of its own with each peer, with catalogs, acknowledgements, budgets and a key of its
// own. What belongs to no tenant, such as images, is the default
// tenant's, whose name is "" and whose store is that of a fleet without tenants.
//
// Both gateways have to know a tenant by their configs: a peer cannot make one up, nor
// the stores that it would take.

// tenantsDir holds the stores of tenants, among those of peers. It is no name of a
// site.
const tenantsDir = "_tenants"

// commonKey names what this gateway holds in common with a peer for a tenant.
type commonKey struct{ site, tenant string }

// storeDir is where it is on disk.
func (g *Gateway) storeDir(h commonKey) string {
	if h.tenant == "" {
		return filepath.Join(g.cfg.StoreDir, h.site)
	}
	return filepath.Join(g.cfg.StoreDir, tenantsDir, h.tenant, h.site)
}

// tenantShare is what each tenant may have of a budget for each peer, in bytes; a
// budget of 0 stands for def.
func (g *Gateway) tenantShare(budget, def int64) int64 {
	return cmp.Or(budget, def) / int64(1+len(g.cfg.Tenants))
}

// tenantKey is for hashes of a tenant's pages.
func (g *Gateway) tenantKey(tenant string) dedup.Key {
	if tenant == "" {
		return g.cfg.ContentKey
	}
	return g.cfg.ContentKey.For(tenant)
}

// checkTenant refuses tenants that are not in the config.
func (g *Gateway) checkTenant(tenant string) error {
	if tenant == "" || slices.Contains(g.cfg.Tenants, tenant) {
		return nil
	}
	return fmt.Errorf("site %s has no tenant %q in its config: %w", g.cfg.Site, tenant, ErrNotFound)
}

// tenantOf tells whose the VM of a host is: the host's tenant's, or whose the
// operator says if the host is shared.
func (g *Gateway) tenantOf(host, asked string) (string, error) {
	if err := g.checkTenant(asked); err != nil {
		return "", err
	}
	own := g.cfg.HostTenants[host]
	if own != "" && asked != "" && own != asked {
		return "", fmt.Errorf("host %s is tenant %s's, not %s's: %w", host, own, asked, ErrInvalid)
	}
	return cmp.Or(own, asked), nil
}

// takesTenant tells whether a host may run VMs of a tenant: those of its own, or
// any if it has none.
func (g *Gateway) takesTenant(host, tenant string) bool {
	own := g.cfg.HostTenants[host]
	return own == "" || own == tenant
}

// tenantStore is storeOf for a tenant that a peer or an operator names.
func (g *Gateway) tenantStore(ctx context.Context, link *tunnel.Link, tenant string) (*dedup.Store, error) {
	if err := g.checkTenant(tenant); err != nil {
		return nil, err
	}
	return g.agreeOn(ctx, link, g.commonOf(commonKey{link.Site(), tenant}))
}

// allHeld is what this gateway holds with all peers, for all tenants.
func (g *Gateway) allHeld() (all []*common) {
	for _, l := range g.node.Links() {
		for _, tenant := range append([]string{""}, g.cfg.Tenants...) {
			all = append(all, g.commonOf(commonKey{l.Site(), tenant}))
		}
	}
	slices.SortFunc(all, func(a, b *common) int {
		return cmp.Or(cmp.Compare(a.site, b.site), cmp.Compare(a.tenant, b.tenant))
	})
	return all
}
