package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// StoreDir is one store on disk: what a site and a peer both hold for one tenant.
type StoreDir struct {
	Site   string // the peer's
	Tenant string // "" for the default tenant
	Path   string
}

// StoreDirs lists the stores below the directory of a gateway's stores, also
// those of peers and tenants that its config has no more. What the site has of its own,
// such as images, is none of them.
func StoreDirs(dir string) (all []StoreDir, err error) {
	names, err := subdirs(dir)
	if err != nil {
		return nil, err
	}
	for _, site := range names {
		if site != tenantsDir && site != imagesDir {
			all = append(all, StoreDir{Site: site, Path: filepath.Join(dir, site)})
		}
	}
	tenants, err := subdirs(filepath.Join(dir, tenantsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, tenant := range tenants {
		sites, err := subdirs(filepath.Join(dir, tenantsDir, tenant))
		if err != nil {
			return nil, err
		}
		for _, site := range sites {
			all = append(all, StoreDir{Site: site, Tenant: tenant, Path: filepath.Join(dir, tenantsDir, tenant, site)})
		}
	}
	return slices.DeleteFunc(all, func(d StoreDir) bool { return !isStore(d.Path) }), nil
}

// isStore tells whether a directory is that of a store: whoever opens one leaves a lock
// in it.
func isStore(dir string) bool {
	st, err := os.Lstat(filepath.Join(dir, "lock"))
	return err == nil && st.Mode().IsRegular()
}

func subdirs(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for content stores: %w", err)
	}
	for _, e := range list {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
