package streams

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// suite of Debian that the servers run.
const suite = "bookworm"

// debian is what is put into the servers.
//
//go:embed debian
var debian embed.FS

// rootfs makes the tree of the servers, or finds it in the cache under the
// digest of what it is made with.
func (r *recorder) rootfs(ctx context.Context) (string, error) {
	customize, err := debian.ReadFile("debian/customize.sh")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(customize)
	tree := filepath.Join(r.build, "root-"+hex.EncodeToString(sum[:4]))
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	mirror, err := mirror(ctx)
	if err != nil {
		return "", err
	}
	r.log.Info("installing debian", "suite", suite)
	tmp := tree + ".part"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := run(ctx, "debootstrap", "--variant=minbase", suite, tmp, mirror); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(tmp, "customize"), customize, 0o755); err != nil {
		return "", err
	}
	// Its own namespaces: neither a mount nor a process stays behind.
	err = run(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec",
		`mount -t proc proc "$1/proc"; chroot "$1" /customize; rm "$1/customize"`, "customize", tmp)
	if err != nil {
		return "", err
	}
	return tree, os.Rename(tmp, tree)
}

// mirror is where apt on this machine gets the suite from.
func mirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("asking apt for its mirror: %w", err)
	}
	for l := range strings.Lines(string(out)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == suite && f[1] == "main" {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("apt is not configured with a mirror of %s", suite)
}

// disk makes the ext4 image of one server: the common tree with a name, an
// identity and a seed of its own.
func (r *recorder) disk(ctx context.Context, tree, name string) (string, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:16])
	files := map[string]string{
		"etc/hostname":      name + "\n",
		"etc/hosts":         "127.0.0.1 localhost\n127.0.1.1 " + name + "\n",
		"etc/machine-id":    id + "\n",
		"etc/longhaul-seed": fmt.Sprintf("%d\n", binary.BigEndian.Uint16(sum[:])),
	}
	for _, f := range []struct{ from, to string }{
		{"debian/agent.pl", "usr/local/sbin/longhaul-agent"},
		{"debian/longhaul-agent.service", "etc/systemd/system/longhaul-agent.service"},
	} {
		b, err := debian.ReadFile(f.from)
		if err != nil {
			return "", err
		}
		files[f.to] = string(b)
	}
	for to, text := range files {
		if err := os.WriteFile(filepath.Join(tree, to), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	if err := hostKeys(ctx, tree); err != nil {
		return "", err
	}
	image := r.image(name)
	if err := os.Remove(image); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	uuid := id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
	return image, run(ctx, "mke2fs", "-q", "-t", "ext4", "-U", uuid, "-d", tree, image, "3G")
}

// image is where the disk of a server is.
func (r *recorder) image(name string) string { return filepath.Join(r.build, name+".img") }

// pausedDisk is that of deb1 as it was when it was recorded.
func (r *recorder) pausedDisk() string { return filepath.Join(r.dir, Deb1+"-paused.img") }

// copyDisk copies an image that nobody writes.
func copyDisk(ctx context.Context, from, to string) error {
	if err := run(ctx, "cp", "--sparse=always", from, to+".part"); err != nil {
		return err
	}
	return os.Rename(to+".part", to)
}

// hostKeys gives the tree new SSH keys.
func hostKeys(ctx context.Context, tree string) error {
	old, err := filepath.Glob(filepath.Join(tree, "etc/ssh/ssh_host_*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return run(ctx, "chroot", tree, "ssh-keygen", "-q", "-A")
}

// boot finds the kernel and the initramfs of a tree.
func boot(tree string) (kernel, initrd string, err error) {
	kernels, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return "", "", fmt.Errorf("%s has %d kernels (%v)", tree, len(kernels), err)
	}
	return kernels[0], strings.Replace(kernels[0], "vmlinuz-", "initrd.img-", 1), nil
}

// run runs a program, and gives an error with its last words.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out[max(0, len(out)-2000):]))
	}
	return nil
}
