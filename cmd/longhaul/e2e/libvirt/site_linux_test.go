package libvirt_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
)

// host is one site as libvirt sees it: a machine with its own name, /run, /var
// and /etc/libvirt.
type host struct {
	*lab.Site
	daemon *lab.Process
}

// setup makes the site's machine of the process that runs it, and becomes
// libvirtd. $1 is the folder of the machine's own files, $2 its name, $3 the
// gateway's run_dir, which libvirt finds at /run/longhaul.
const setup = `set -e
mount --make-rprivate /
hostname "$2"
for f in hosts passwd group; do mount --bind "$1/$f" /etc/$f; done
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/var" /var
mount --bind "$1/run" /run
mkdir -p /run/longhaul /var/lib/libvirt/images /var/log
ln -s /run /var/run
mount --bind "$3" /run/longhaul
exec libvirtd --listen
`

// Two libvirtd on one machine must not have the same host_uuid, or they refuse
// to move a VM from the one to the other. keepalive_interval is what the README
// says for a WAN that may be away.
const daemonConf = `host_uuid = "5c0ffee0-0000-4000-8000-00000000000%d"
listen_tcp = 1
listen_tls = 0
listen_addr = "127.0.0.1"
auth_tcp = "none"
auth_unix_rw = "none"
keepalive_interval = -1
log_outputs = "2:stderr"
`

// Everything that needs more of the machine than a namespace has is off.
const qemuConf = `user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

// startHost runs libvirtd at a site and waits until it answers.
func startHost(t *testing.T, ctx context.Context, s *lab.Site, number int) *host {
	t.Helper()
	dir, run := filepath.Join(s.Dir, "machine"), filepath.Join(s.Dir, "run")
	for _, d := range []string{dir + "/etc", dir + "/var", dir + "/run", run + "/forward"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"passwd":            hostFile(t, "/etc/passwd") + "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n",
		"group":             hostFile(t, "/etc/group") + "libvirt-qemu:x:64055:\n",
		"hosts":             "127.0.0.1 localhost\n198.51.100.1 kvm-a\n198.51.100.2 kvm-b\n",
		"etc/libvirtd.conf": fmt.Sprintf(daemonConf, number),
		"etc/qemu.conf":     qemuConf,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Start(ctx, "libvirtd", "unshare", "--mount", "--uts", "sh", "-c", setup, "setup", dir, "kvm-"+s.Name, run)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Site: s, daemon: p}
	h.waitUp(t, ctx)
	return h
}

// hostFile reads a file of this machine. libvirtd starts only if there is a user
// libvirt-qemu, whom it does not need as configured here and whom a package makes
// that would also start a libvirtd on this machine.
func hostFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// machine is the path outside the site of a file of its machine.
func (h *host) machine(path string) string { return filepath.Join(h.Dir, "machine", path) }

// waitUp waits until libvirtd takes connections.
func (h *host) waitUp(t *testing.T, ctx context.Context) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		c, err := net.Dial("unix", h.machine("run/libvirt/libvirt-sock"))
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-look.C:
		case <-h.daemon.Done():
			t.Fatalf("libvirtd of site %s has ended: %v", h.Name, h.daemon.Err())
		case <-ctx.Done():
			t.Fatalf("libvirtd of site %s does not come up: %v", h.Name, err)
		}
	}
}

// command runs on the site's machine.
func (h *host) command(ctx context.Context, argv ...string) *exec.Cmd {
	enter := []string{"nsenter", "-t", strconv.Itoa(h.daemon.PID()), "-m", "-u", "-n"}
	return exec.CommandContext(ctx, enter[0], append(enter[1:], argv...)...)
}

// virsh runs virsh at the site and returns what it says.
func (h *host) virsh(ctx context.Context, args ...string) (string, error) {
	out, err := h.command(ctx, append([]string{"virsh", "-q", "-k", "0", "-c", "qemu:///system"}, args...)...).CombinedOutput()
	text := string(bytes.TrimSpace(out))
	if err != nil {
		return text, fmt.Errorf("virsh %s at site %s: %w: %s", strings.Join(args, " "), h.Name, err, text)
	}
	return text, nil
}
