package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
)

// A Site is one place of the lab: a network namespace and a folder.
type Site struct {
	Name      string     // "a", "b", "c", or what it was added as
	Namespace string     // for ip netns exec
	WAN       netip.Addr // its address on the WAN; zero for the client and what was added
	Dir       string     // sockets, logs and configs of the site
	net       *nstest.NS
	toward    map[*Site]netip.Addr // the other end of each line
}

// qmpDir is the folder of a site for the QMP sockets of its guests.
const qmpDir = "qmp"

// QMPDir is where the site's guests have their QMP sockets, for a gateway's
// config (hosts: qmp_dir).
func (s *Site) QMPDir() string { return filepath.Join(s.Dir, qmpDir) }

func (l *Lab) newSite(name string) (*Site, error) {
	dir, err := l.folder(name)
	if err == nil {
		_, err = l.folder(name, qmpDir)
	}
	if err != nil {
		return nil, fmt.Errorf("making site %s: %w", name, err)
	}
	s := &Site{Name: name, Namespace: namespaceOf(l.ID, name), Dir: dir, toward: make(map[*Site]netip.Addr)}
	if s.net, err = nstest.Create(s.Namespace); err != nil {
		return nil, fmt.Errorf("making site %s: %w", name, err)
	}
	// Silence: no router solicitations or duplicate address detection.
	if err := s.net.Sysctl("ipv6.conf.default.disable_ipv6", "1"); err != nil {
		return nil, errors.Join(err, s.net.Close())
	}
	return s, nil
}

// Address is where the site reaches another one, to which it has a line: the other's WAN, but for the lines
// of a third site, which have networks of their own.
func (s *Site) Address(other *Site) netip.Addr { return s.toward[other] }

// Do calls f inside the site's network: sockets that f opens and processes
// that it starts live there.
func (s *Site) Do(f func() error) error { return s.net.Do(f) }

// Net is the site's namespace, for what the lab has no word for.
func (s *Site) Net() *nstest.NS { return s.net }

// Dial connects from inside the site. addr holds an IP address, not a name.
func (s *Site) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := s.net.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Command is a command that will run inside the site, with the site's own /sys.
func (s *Site) Command(ctx context.Context, argv ...string) *exec.Cmd {
	argv = append(s.prefix(), argv...)
	return exec.CommandContext(ctx, argv[0], argv[1:]...)
}

func (s *Site) prefix() []string { return []string{"ip", "netns", "exec", s.Namespace} }

// ip runs iproute2 on the site's network, for what nstest has no word for.
func (s *Site) ip(args ...string) error {
	out, err := exec.Command("ip", append([]string{"-n", s.Namespace}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s at site %s: %w: %s", strings.Join(args, " "), s.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Tap makes a TAP device that stays until the site goes, on the site's LAN,
// for a QEMU to attach to. An existing one is left as it is.
func (s *Site) Tap(name string, mtu int) error {
	if err := s.net.Do(func() error { return persistentTap(name) }); err != nil {
		return fmt.Errorf("making tap %s at site %s: %w", name, s.Name, err)
	}
	return errors.Join(s.net.SetMTU(name, mtu), s.net.Plug(name, Bridge), s.net.Up(name))
}

func persistentTap(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		if errors.Is(err, unix.EBUSY) { // there is one, and a QEMU is attached
			return nil
		}
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}

// Stretch joins the LANs of both sites by the kernel's own VXLAN across the
// WAN: what one would do by hand. Frames of more than 1450 bytes go as
// fragments. Unstretch removes it.
func (l *Lab) Stretch() error {
	for _, end := range [][2]*Site{{l.A, l.B}, {l.B, l.A}} {
		s, peer := end[0], end[1]
		err := s.ip("link", "add", vxlanDevice, "type", "vxlan", "id", "77", "local", s.WAN.String(), "remote", peer.WAN.String(), "dstport", "4789")
		if err != nil {
			return err
		}
		if err := errors.Join(s.net.SetMTU(vxlanDevice, 1500), s.net.Plug(vxlanDevice, Bridge), s.net.Up(vxlanDevice)); err != nil {
			return err
		}
	}
	return nil
}

const vxlanDevice = "vxlan77"

// Unstretch parts the LANs again.
func (l *Lab) Unstretch() error {
	return errors.Join(l.A.net.Del(vxlanDevice), l.B.net.Del(vxlanDevice))
}

// MAC is the hardware address at which the site finds ip on its LAN, or "" when
// it has not asked.
func (s *Site) MAC(ip string) (string, error) {
	out, err := exec.Command("ip", "-n", s.Namespace, "neigh", "show", ip).Output()
	if err != nil {
		return "", fmt.Errorf("looking for %s at site %s: %w", ip, s.Name, err)
	}
	_, after, _ := strings.Cut(string(out), " lladdr ")
	mac, _, _ := strings.Cut(after, " ")
	return mac, nil
}

// Owns tells whether the bridge of the site has learned mac on the given port.
func (s *Site) Owns(mac, port string) (bool, error) {
	out, err := exec.Command("bridge", "-n", s.Namespace, "fdb", "show", "br", Bridge).Output()
	if err != nil {
		return false, fmt.Errorf("listing the FDB of site %s: %w", s.Name, err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, mac) && strings.Contains(line, "dev "+port+" ") {
			return true, nil
		}
	}
	return false, nil
}

// close ends what runs in the site and removes it.
func (s *Site) close() error {
	return errors.Join(killInside(s.Namespace), s.net.Close())
}

// killInside ends every process of a namespace, however it got there.
func killInside(namespace string) error {
	var want unix.Stat_t
	if err := unix.Stat(filepath.Join("/run/netns", namespace), &want); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("looking at namespace %s: %w", namespace, err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return err
	}
	for _, path := range links {
		var got unix.Stat_t
		var pid int
		if unix.Stat(path, &got) != nil || got.Ino != want.Ino || got.Dev != want.Dev {
			continue
		}
		if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
			unix.Kill(pid, unix.SIGKILL) // gone already is as good
		}
	}
	return nil
}
