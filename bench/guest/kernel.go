package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// kernelMeta is the package that depends on Debian's newest cloud kernel.
const kernelMeta = "linux-image-cloud-amd64"

// kernelFile is the kernel's name in its folder of the cache; the modules lie
// beside it.
const kernelFile = "vmlinuz"

// fetchKernel returns the folder of a kernel and its modules. Without a
// package index or a mirror it takes the newest kernel that was fetched before.
func fetchKernel(ctx context.Context, cache string) (string, error) {
	name, err := kernelPackage(ctx)
	if err != nil {
		return newestKernel(cache, err)
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(filepath.Join(dir, kernelFile)); err == nil {
		return dir, nil
	}
	if err := downloadKernel(ctx, cache, name); err != nil {
		return newestKernel(cache, err)
	}
	return dir, nil
}

func newestKernel(cache string, why error) (string, error) {
	found, err := filepath.Glob(filepath.Join(cache, "linux-image-*", kernelFile))
	if err != nil || len(found) == 0 {
		return "", why
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// kernelPackage asks apt for the package that holds the kernel itself.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := command(ctx, "", "apt-cache", "depends", kernelMeta)
	if err != nil {
		return "", err
	}
	name := regexp.MustCompile(`Depends: (linux-image-\S+-cloud-amd64)`).FindStringSubmatch(out)
	if name == nil {
		return "", fmt.Errorf("apt knows no %s; run apt-get update", kernelMeta)
	}
	return name[1], nil
}

// downloadKernel puts kernel and virtio modules of a package into the cache.
func downloadKernel(ctx context.Context, cache, name string) (err error) {
	tmp, err := os.MkdirTemp(cache, ".kernel-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if _, err := command(ctx, tmp, "apt-get", "-o", "APT::Sandbox::User=root", "download", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages (%v)", name, len(debs), err)
	}
	root := filepath.Join(tmp, "root")
	if _, err := command(ctx, tmp, "dpkg", "-x", debs[0], root); err != nil {
		return err
	}
	if err := collect(root, filepath.Join(tmp, "kernel")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "kernel"), filepath.Join(cache, name))
}

// collect copies the kernel and all modules of an unpacked package into one
// folder.
func collect(root, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.Type().IsRegular():
			return err
		case strings.HasPrefix(d.Name(), "vmlinuz"):
			return os.Rename(path, filepath.Join(to, kernelFile))
		case strings.HasSuffix(path, ".ko") && (strings.Contains(path, "/drivers/") || strings.Contains(path, "/net/")):
			return os.Rename(path, filepath.Join(to, moduleName(path)+".ko"))
		}
		return nil
	})
}

// module is one kernel module of the guest.
type module struct {
	path string
	elf  []byte
}

// moduleName is how modules name each other: with underscores.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// moduleOrder lists the wanted modules and all that they depend on, in the
// order in which they must be loaded, as modprobe --show-depends would.
func moduleOrder(dir string, wanted ...string) ([]module, error) {
	var order []module
	seen := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		m := module{path: filepath.Join(dir, name+".ko")}
		var err error
		if m.elf, err = os.ReadFile(m.path); err != nil {
			return fmt.Errorf("reading module %s: %w", name, err)
		}
		needs, err := depends(m.elf)
		if err != nil {
			return fmt.Errorf("reading module %s: %w", name, err)
		}
		for _, need := range needs {
			if err := visit(need); err != nil {
				return err
			}
		}
		order = append(order, m)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// depends reads the modules that a module needs from its section .modinfo.
func depends(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(strings.ReplaceAll(list, "-", "_"), ","), nil
		}
	}
	return nil, nil
}
