package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/longhaul-project/longhaul/internal/conffile"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// A checker gathers all that is wrong, so that a file is corrected in one go.
type checker struct{ errs []error }

// fail names the key as a path: "peers[1].site".
func (c *checker) fail(key, format string, args ...any) {
	c.errs = append(c.errs, conffile.At(key, fmt.Errorf(format, args...)))
}

// Validate finds all that is wrong; conffile adds the places.
func (c *Config) Validate() error { return c.withDefaults().check() }

// check looks at a config with its defaults.
func (c Config) check() error {
	k := &checker{}
	k.name("site", c.Site)
	k.name("gateway", c.Gateway)
	k.path("pki", c.PKI)
	k.path("dir", c.Dir)
	k.path("run_dir", c.RunDir)
	k.path("api.socket", c.API.Socket)
	k.listen("listen", c.Listen)
	for i, a := range c.Address {
		k.dial(fmt.Sprintf("address[%d]", i), a)
	}
	if c.Metrics.Listen != "" {
		k.listen("metrics.listen", c.Metrics.Listen)
	}
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "text", "json")
	k.device("l2.carrier", c.L2.Carrier)
	k.link(c.Link)
	if c.Store.Memory < minMemory {
		k.fail("store.memory", "%s is too little: at least 8MiB", c.Store.Memory)
	}
	if c.Store.Disk < minMemory {
		k.fail("store.disk", "%s is too little: at least 8MiB", c.Store.Disk)
	}
	for i, d := range c.Store.Seed.Dirs {
		k.path(fmt.Sprintf("store.seed.dirs[%d]", i), d)
	}
	if c.Store.Seed.Rate < 0 {
		k.fail("store.seed.rate", "%s is negative", c.Store.Seed.Rate)
	}
	if c.Store.Seed.ReadRate < 0 {
		k.fail("store.seed.read_rate", "%s is negative", c.Store.Seed.ReadRate)
	}
	k.peers(c)
	k.tenants(c)
	k.hosts(c.Hosts)
	k.segments(c)
	k.forwards(c)
	for i, rule := range c.ForwardAllow {
		if _, err := parseRule(rule); err != nil {
			k.fail(fmt.Sprintf("forward_allow[%d]", i), "%w", err)
		}
	}
	return errors.Join(k.errs...)
}

func (k *checker) tenants(c Config) {
	for i, name := range c.Tenants {
		key := fmt.Sprintf("tenants[%d]", i)
		if !nameRule.MatchString(name) {
			k.fail(key, "%q: %s", name, nameForm)
		}
		if slices.Contains(c.Tenants[:i], name) {
			k.fail(key, "%s is there twice", name)
		}
	}
	for i, h := range c.Hosts {
		if h.Tenant != "" && !slices.Contains(c.Tenants, h.Tenant) {
			k.fail(fmt.Sprintf("hosts[%d].tenant", i), "%q is none of the tenants of this config", h.Tenant)
		}
	}
	for i, f := range c.Forwards {
		if f.Tenant != "" && !slices.Contains(c.Tenants, f.Tenant) {
			k.fail(fmt.Sprintf("forwards[%d].tenant", i), "%q is none of the tenants of this config", f.Tenant)
		}
	}
	if n := conffile.Size(1 + len(c.Tenants)); len(c.Tenants) > 0 && min(c.Store.Memory, c.Store.Disk)/n < minMemory {
		k.fail("tenants", "store.memory and store.disk leave less than 8MiB for each of %d tenants and for what belongs to none", len(c.Tenants))
	}
}

func (k *checker) link(l Link) {
	if err := checkRate(l.Rate); err != nil {
		k.fail("link.rate", "%w", err)
	}
	for i, w := range l.Calendar {
		if _, err := w.parse(); err != nil {
			k.fail(fmt.Sprintf("link.calendar[%d]", i), "%w", err)
		}
	}
	if l.Patience < 0 {
		k.fail("link.patience", "%s is negative", l.Patience)
	}
	if _, err := tunnel.ParseCarrier(l.Carrier); err != nil {
		k.fail("link.carrier", "%w", err)
	}
	for _, class := range tunnel.FlowClasses() {
		if n := l.Weights.Tunnel().Of(class); n < 1 || n > tunnel.MaxWeight {
			k.fail("link.weights."+class.String(), "%d: 1 to %d", n, tunnel.MaxWeight)
		}
	}
	if l.Connections < 0 || l.Connections > maxConnections {
		k.fail("link.connections", "%d: 1 to %d, or 0 to let the line decide", l.Connections, maxConnections)
	}
}

func (k *checker) peers(c Config) {
	for i, p := range c.Peers {
		key := fmt.Sprintf("peers[%d]", i)
		k.name(key+".site", p.Site)
		if p.Site == c.Site {
			k.fail(key+".site", "%s is this site", p.Site)
		}
		if slices.ContainsFunc(c.Peers[:i], func(o Peer) bool { return o.Site == p.Site }) {
			k.fail(key+".site", "%s is there twice; a site may have several addresses", p.Site)
		}
		if _, err := tunnel.ParseCarrier(p.Carrier); err != nil {
			k.fail(key+".carrier", "%w", err)
		}
		k.addresses(key, p)
	}
}

// maxPaths is tunnel's.
const maxPaths = 4

func (k *checker) addresses(key string, p Peer) {
	switch {
	case len(p.Address) == 0 && len(p.Paths) == 0:
		k.fail(key+".address", "is missing; leave the peer out if it dials us")
	case len(p.Address) > 0 && len(p.Paths) > 0:
		k.fail(key+".paths", "have the addresses; leave address out")
	case len(p.Paths) > maxPaths:
		k.fail(key+".paths", "%d of them, at most %d", len(p.Paths), maxPaths)
	}
	for n, a := range p.Address {
		k.dial(fmt.Sprintf("%s.address[%d]", key, n), a)
	}
	for i, path := range p.Paths {
		at := fmt.Sprintf("%s.paths[%d]", key, i)
		k.name(at+".name", path.Name)
		if slices.ContainsFunc(p.Paths[:i], func(o Path) bool { return o.Name == path.Name }) {
			k.fail(at+".name", "%s is there twice", path.Name)
		}
		k.source(at+".source", path)
		for n, a := range path.Address {
			k.dial(fmt.Sprintf("%s.address[%d]", at, n), a)
		}
		if err := checkRate(path.Rate); err != nil {
			k.fail(at+".rate", "%w", err)
		}
		if path.Cost < 0 {
			k.fail(at+".cost", "%d is negative", path.Cost)
		}
	}
}

// source is an IP address from which one of the path's addresses can be reached: of the
// same family, unless that is a name, which may turn out to have either.
func (k *checker) source(key string, path Path) {
	if path.Source == "" {
		return
	}
	source, err := netip.ParseAddr(path.Source)
	if err != nil {
		k.fail(key, "%w", err)
		return
	}
	other := func(address string) bool {
		host, _, _ := net.SplitHostPort(address)
		to, err := netip.ParseAddr(host)
		return err == nil && to.Unmap().Is4() != source.Unmap().Is4()
	}
	if len(path.Address) > 0 && !slices.ContainsFunc(path.Address, func(a string) bool { return !other(a) }) {
		k.fail(key, "%s: nothing can be sent from it to %s, of another IP family, over path %s", path.Source, strings.Join(path.Address, ", "), path.Name)
	}
}

func (k *checker) hosts(hosts []Host) {
	for i, h := range hosts {
		key := fmt.Sprintf("hosts[%d]", i)
		k.name(key+".name", h.Name)
		if slices.ContainsFunc(hosts[:i], func(o Host) bool { return o.Name == h.Name }) {
			k.fail(key+".name", "%s is there twice", h.Name)
		}
		if len(h.QMP) == 0 && h.QMPDir == "" {
			k.fail(key, "needs qmp or qmp_dir")
		}
		for n, p := range h.QMP {
			k.path(fmt.Sprintf("%s.qmp[%d]", key, n), p)
		}
		if h.QMPDir != "" {
			k.path(key+".qmp_dir", h.QMPDir)
		}
		k.path(key+".run_dir", h.RunDir)
		k.path(key+".work_dir", h.WorkDir)
		for n, e := range h.Emulators {
			k.path(fmt.Sprintf("%s.emulators[%d]", key, n), e)
			if _, err := filepath.Match(e, "/"); err != nil {
				k.fail(fmt.Sprintf("%s.emulators[%d]", key, n), "%q: %w", e, err)
			}
		}
		for n, e := range h.Env {
			if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
				k.fail(fmt.Sprintf("%s.env[%d]", key, n), "%q: want NAME=value", e)
			}
		}
		k.launch(key+".launch", h.Launch)
		for name, argv := range map[string][]string{".launch": h.Launch, ".before": h.Before, ".after": h.After} {
			if argv != nil && len(argv) == 0 {
				k.fail(key+name, "is empty; leave it out")
			}
			if len(argv) > 0 {
				k.path(key+name+"[0]", argv[0])
			}
		}
	}
}

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// launch finds what launch.Expand would leave as it is.
func (k *checker) launch(key string, argv []string) {
	known := []string{"{name}", "{uuid}", "{memory_bytes}", "{token}", "{qmp}", "{incoming}"}
	for n, word := range argv {
		for _, p := range placeholder.FindAllString(word, -1) {
			if !slices.Contains(known, p) {
				k.fail(fmt.Sprintf("%s[%d]", key, n), "%q is none of %s", p, strings.Join(known, ", "))
			}
		}
	}
	if len(argv) > 0 && !strings.Contains(strings.Join(argv, " "), "{qmp}") {
		k.fail(key, "{qmp} is nowhere in it: the gateway could not reach the QEMU that it starts")
	}
}

// nameRule is the gateway's, for what operators name.
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

const nameForm = "small letters, digits and hyphens, at most 63"

func (k *checker) segments(c Config) {
	k.underlay(c.L2)
	for i, s := range c.Segments {
		key := fmt.Sprintf("segments[%d]", i)
		k.name(key+".name", s.Name)
		if s.VNI == 0 || s.VNI >= 1<<24 {
			k.fail(key+".vni", "%d: 1 to 16777215 (RFC 7348, section 5)", s.VNI)
		}
		k.device(key+".bridge", s.Bridge)
		k.vlan(key, s)
		if s.MTU < 576 || s.MTU > 9000 {
			k.fail(key+".mtu", "%d: 576 to 9000", s.MTU)
		}
		if err := l2ext.Mode(s.Mode).Check(); err != nil {
			k.fail(key+".mode", "%w", err)
		}
		if s.Mode == string(l2ext.Direct) && c.L2.Underlay == "" {
			k.fail(key+".mode", "direct needs l2.underlay, this machine's address on the private network between the sites")
		}
		k.policy(key+".policy", c.Site, s)
		for n, site := range s.Sites {
			at := fmt.Sprintf("%s.sites[%d]", key, n)
			k.name(at, site)
			if site == c.Site {
				k.fail(at, "%s is this site; list the others", site)
			}
		}
		for _, o := range c.Segments[:i] {
			if o.Name == s.Name || o.VNI == s.VNI {
				k.fail(key, "shares its name or VNI with %s", o.Name)
			}
			k.neighbours(key, s, o)
		}
	}
}

// policy is one that means something, and that the segment's mode and sites can follow.
func (k *checker) policy(key, self string, s Segment) {
	if err := s.Policy.Check(); err != nil {
		k.fail(key, "%w", err)
		return
	}
	p, _ := s.Policy.Policy() // fails as Check does
	if err := p.CarriedBy(l2ext.Mode(s.Mode)); err != nil {
		k.fail(key+".streams", "%w", err)
	}
	if home := s.Policy.Home; home != "" && home != self && s.Sites != nil && !slices.Contains(s.Sites, home) {
		k.fail(key+".home", "%s is neither this site nor one of the segment's sites", home)
	}
}

// vlan is one of the bridge's that the gateway can take.
func (k *checker) vlan(key string, s Segment) {
	if s.VLAN > l2ext.MaxVLAN {
		k.fail(key+".vlan", "%d: 1 to %d (IEEE 802.1Q)", s.VLAN, l2ext.MaxVLAN)
	}
	if s.VLAN != 0 && s.Mode == string(l2ext.Direct) {
		k.fail(key+".vlan", "%d: not in mode direct, in which the kernel would carry frames with their tags", s.VLAN)
	}
}

// neighbours are segments on one bridge.
func (k *checker) neighbours(key string, s, o Segment) {
	switch {
	case s.Bridge != o.Bridge:
	case s.VLAN == o.VLAN:
		k.fail(key, "shares its bridge with %s: each needs a vlan of its own there", o.Name)
	case cmp.Or(s.Mode, string(l2ext.Secure)) != cmp.Or(o.Mode, string(l2ext.Secure)), s.Mode == string(l2ext.Direct):
		k.fail(key+".mode", "shares its bridge with %s: both must be %s, or both %s", o.Name, l2ext.Secure, l2ext.SecureFast)
	}
}

// underlay is an address to which other machines can send.
func (k *checker) underlay(l L2) {
	if l.Underlay == "" {
		return
	}
	a, err := netip.ParseAddr(l.Underlay)
	switch {
	case err != nil:
		k.fail("l2.underlay", "%q is no IP address", l.Underlay)
	case a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast():
		k.fail("l2.underlay", "%v: other machines cannot send to it", a)
	}
}

func (k *checker) forwards(c Config) {
	for i, f := range c.Forwards {
		key := fmt.Sprintf("forwards[%d]", i)
		if !nameRule.MatchString(f.Name) {
			k.fail(key+".name", "%q: %s", f.Name, nameForm)
		}
		k.name(key+".to", f.To)
		if f.To == c.Site {
			k.fail(key+".to", "%s is this site; a forward comes out at another one", f.To)
		}
		k.address(key+".listen", f.Listen)
		k.address(key+".target", f.Target)
		k.oneOf(key+".kind", f.Kind, "auto", "migration", "tcp")
		for _, o := range c.Forwards[:i] {
			if o.Name == f.Name || o.Listen == f.Listen {
				k.fail(key, "shares its name or address with %s", o.Name)
			}
		}
	}
}

func (k *checker) name(key, name string) {
	if name == "" {
		k.fail(key, "is missing")
	} else if err := pki.CheckName(name); err != nil {
		k.fail(key, "%w", err)
	}
}

func (k *checker) path(key, path string) {
	if !filepath.IsAbs(path) {
		k.fail(key, "%q is not an absolute path", path)
	}
}

func (k *checker) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		k.fail(key, "%q is none of %s", value, strings.Join(allowed, ", "))
	}
}

// device is the name of a network device: IFNAMSIZ with its end (Linux,
// include/uapi/linux/if.h).
func (k *checker) device(key, name string) {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == '/' || r == ':' || r == 0x7f // net/core/dev.c, dev_valid_name
	}) {
		k.fail(key, "%q is no name of a network device", name)
	}
}

// listen is an address to listen on: the host may be left out.
func (k *checker) listen(key, address string) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		k.fail(key, "%q: want HOST:PORT or :PORT", address)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		k.fail(key, "%q: port %q is none", address, port)
	}
}

// dial is an address to connect to.
func (k *checker) dial(key, address string) {
	if err := CheckDial(address); err != nil {
		k.fail(key, "%w", err)
	}
}

// CheckDial tells whether address is a HOST:PORT that can be dialled.
func CheckDial(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return fmt.Errorf("%q: want HOST:PORT", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q: port %q is none", address, port)
	}
	return nil
}

// address is one end of a forward.
func (k *checker) address(key, address string) {
	network, rest, _ := strings.Cut(address, ":")
	switch network {
	case "tcp":
		k.listen(key, rest)
	case "unix":
		k.path(key, rest)
		if len(rest) > 107 { // sun_path with its end, unix(7)
			k.fail(key, "the path of a socket has at most 107 bytes, this one %d", len(rest))
		}
	default:
		k.fail(key, "%q: want tcp:HOST:PORT or unix:/path", address)
	}
}
