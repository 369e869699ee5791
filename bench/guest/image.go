package guest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Image is what a guest boots from.
type Image struct {
	Kernel string // path of the kernel
	Initrd string // path of the initramfs
}

// Build returns the image, which it makes first when the cache does not have
// it: about 5 s and 27 MB from Debian's mirror, once for each kernel.
func Build(ctx context.Context) (Image, error) {
	dir, err := cacheDir()
	if err != nil {
		return Image{}, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	kernel, err := fetchKernel(ctx, dir)
	if err != nil {
		return Image{}, fmt.Errorf("fetching the guest's kernel: %w", err)
	}
	initrd, err := buildInitrd(ctx, dir, kernel)
	if err != nil {
		return Image{}, fmt.Errorf("making the guest's initramfs: %w", err)
	}
	return Image{Kernel: filepath.Join(kernel, kernelFile), Initrd: initrd}, nil
}

// cacheDir is where images live between runs.
func cacheDir() (string, error) {
	dir := os.Getenv("LONGHAUL_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil { // no $HOME, as under systemd
			user = "/var/cache"
		}
		dir = filepath.Join(user, "longhaul")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	return dir, nil
}

// buildInitrd makes the initramfs, or finds it under the digest of all that
// goes into it.
func buildInitrd(ctx context.Context, dir, kernel string) (string, error) {
	busybox, err := os.ReadFile(cmp.Or(os.Getenv("LONGHAUL_BUSYBOX"), "/bin/busybox"))
	if err != nil {
		return "", fmt.Errorf("reading busybox (Debian package busybox-static): %w", err)
	}
	modules, err := moduleOrder(kernel, "virtio_pci", "virtio_net", "virtio_blk")
	if err != nil {
		return "", err
	}
	key, err := digest(kernel, busybox, modules)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initrd-"+key)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	program, err := buildWorkload(ctx, dir)
	if err != nil {
		return "", err
	}
	var c cpio
	for _, name := range []string{"bin", "dev", "lib", "proc", "sys"} {
		c.dir(name)
	}
	c.device("dev/console", 5, 1)
	c.device("dev/null", 1, 3)
	c.file("bin/busybox", 0o755, busybox)
	c.file("init", 0o755, []byte(initScript(modules)))
	c.file("workload", 0o755, program)
	for _, m := range modules {
		c.file("lib/"+filepath.Base(m.path), 0o644, m.elf)
	}
	return path, writeFile(path, c.end())
}

// digest names an initramfs by what it is made of.
func digest(kernel string, busybox []byte, modules []module) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, filepath.Base(kernel), goVersion(), initScript(modules))
	h.Write(busybox)
	err := fs.WalkDir(sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !isSource(path, d) {
			return err
		}
		b, err := sources.ReadFile(path)
		fmt.Fprintln(h, path, len(b))
		h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}

// initScript is the guest's first process until it becomes the workload.
func initScript(modules []module) string {
	var b strings.Builder
	b.WriteString(`#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
`)
	for _, m := range modules {
		fmt.Fprintf(&b, "$b insmod /lib/%s\n", filepath.Base(m.path))
	}
	b.WriteString(`seed=1 fill=85 hard=false rate=0 mtu=1500 disk=
for word in $($b cat /proc/cmdline); do
	case $word in
	lh.seed=*) seed=${word#*=} ;;
	lh.fill=*) fill=${word#*=} ;;
	lh.hard=*) hard=${word#*=} ;;
	lh.rate=*) rate=${word#*=} ;;
	lh.mtu=*) mtu=${word#*=} ;;
	lh.ip=*) ip=${word#*=} ;;
	lh.gw=*) gw=${word#*=} ;;
	esac
done
$b ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
	$b ip link set eth0 mtu $mtu up
	[ -z "$ip" ] || $b ip addr add $ip dev eth0
	[ -z "$gw" ] || $b ip route add default via $gw
fi
[ -e /dev/vda ] && disk=/dev/vda
echo "longhaul guest: started"
exec /workload -seed $seed -fill $fill -hard=$hard -rate $rate -disk "$disk"
`)
	return b.String()
}

// writeFile writes a file that either is there as a whole or is not.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// command runs a program and gives its output, or an error with its last words.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, problem strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}
