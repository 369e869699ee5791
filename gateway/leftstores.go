package gateway

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
)

// leftStores are those on disk of tenants that this gateway does not have, and of peers
// that are not in its config and have not dialed in yet: nobody opens them, so nothing is
// evicted of them either. They are not removed without an operator: a peer that comes later,
// or was left out by mistake, would cost all that it holds.
func (g *Gateway) leftStores() (left []LeftStore, err error) {
	if g.cfg.StoreDir == "" {
		return nil, nil
	}
	all, err := StoreDirs(g.cfg.StoreDir)
	if errors.Is(err, fs.ErrNotExist) { // nothing was kept yet
		return nil, nil
	}
	for _, d := range all {
		if g.node.Link(d.Site) != nil && (d.Tenant == "" || slices.Contains(g.cfg.Tenants, d.Tenant)) {
			continue
		}
		bytes, e := diskUse(d.Path)
		err = errors.Join(err, e)
		left = append(left, LeftStore{Site: d.Site, Tenant: d.Tenant, Dir: d.Path, Disk: bytes})
	}
	return left, err
}

// diskUse is how many bytes the files below a directory have. Those that go away meanwhile
// have none.
func diskUse(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		n += st.Size()
		return nil
	})
	return n, err
}
