// Package config is longhauld's config file: one YAML file, read strictly.
// starter.go writes a commented one, deploy/config has examples, and the
// fields below say what each key means.
//
// link.rate, link.calendar, link.weights, peers and log.level change on SIGHUP
// (systemctl reload, longhaul reload); any other key needs a restart, and Reload
// names those that differ.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/conffile"
	"github.com/longhaul-project/longhaul/internal/qemu/launch"
	"github.com/longhaul-project/longhaul/l2ext/hostnet"
	"github.com/longhaul-project/longhaul/tunnel"
)

// DefaultPath is where longhauld looks for its config.
const DefaultPath = "/etc/longhaul/longhauld.yaml"

// Config of a gateway, as the file has it. Load fills the defaults in.
type Config struct {
	// Site and Gateway must be the names in the certificate. Gateway is gw1
	// if not given.
	Site    string `yaml:"site"`
	Gateway string `yaml:"gateway"`

	// PKI is the directory of this gateway's identity, which "longhaul init"
	// or "longhaul join" makes. /etc/longhaul/pki if not given.
	PKI string `yaml:"pki"`

	// Dir is the directory of the journal of moves and of the content store. /var/lib/longhaul if not given.
	Dir string `yaml:"dir"`

	// RunDir is the directory of sockets. /run/longhaul if not given.
	RunDir string `yaml:"run_dir"`

	// Listen is the address of the link, the one port that a site opens: in UDP,
	// and in TCP for sites that UDP does not reach. ":7447" if not given.
	Listen string `yaml:"listen"`

	// Address is where other sites reach Listen, as HOST:PORT. Join tokens
	// carry it. A site that only dials needs none.
	Address []string `yaml:"address"`

	// Peers are the sites to dial. A site of the fleet that is not named here
	// may dial in all the same.
	Peers []Peer `yaml:"peers"`

	Link  Link  `yaml:"link"`
	Store Store `yaml:"store"`

	// Tenants are those whose VMs share no content of the store with others',
	// nor with what belongs to no tenant. Each has its share of the store's
	// budgets, and so has what belongs to none. Both sites of a move name them.
	Tenants []string `yaml:"tenants"`

	// Hosts are the hypervisor hosts of this site.
	Hosts []Host `yaml:"hosts"`

	// Segments are the Layer 2 networks to stretch from this site.
	Segments []Segment `yaml:"segments"`

	// Forwards are local ports that come out at another site.
	Forwards []Forward `yaml:"forwards"`

	L2 L2 `yaml:"l2"`

	// ForwardAllow says where at this site the forwards of other sites may
	// come out; see allow.go for the forms. If not given: TCP on the loopback
	// and sockets in RunDir/forward. [] allows nothing.
	ForwardAllow []string `yaml:"forward_allow"`

	API     API     `yaml:"api"`
	Metrics Metrics `yaml:"metrics"`
	Log     Log     `yaml:"log"`
}

// Peer is a site to dial. It changes on reload.
type Peer struct {
	Site    string   `yaml:"site"`
	Address []string `yaml:"address"` // HOST:PORT, one or more
	Paths   []Path   `yaml:"paths"`   // several ways to it, used together; in place of Address
	Carrier string   `yaml:"carrier"` // as link.carrier, which it is if not given
}

// Path is one way to a peer, such as an uplink. Both ends know it by its name. An
// end that is dialed names it only to say its rate or its cost.
type Path struct {
	Name    string        `yaml:"name"`
	Source  string        `yaml:"source"`  // IP address to send from; the system chooses if not given
	Address []string      `yaml:"address"` // HOST:PORT, one or more; none if the peer dials
	Rate    conffile.Rate `yaml:"rate"`    // what the way carries from here, at least 128kbit; found out if not given
	Cost    int           `yaml:"cost"`    // what costs more is left to moves that are in a hurry; 0 if not given
}

// Link is how this gateway uses the WAN, for each peer.
type Link struct {
	// Rate caps what the link sends, in bits per second on the wire, at least
	// 128kbit. 0, the default, is no cap. It changes on reload.
	Rate conffile.Rate `yaml:"rate"`

	// Calendar has other caps for parts of the week, by the machine's local
	// time. Of several that hold, the first counts; Rate is for all other
	// times. It changes on reload.
	Calendar []Window `yaml:"calendar"`

	// Patience is how long a move waits for a WAN that is away. 10m if not given.
	Patience conffile.Duration `yaml:"patience"`

	// Carrier is what carries the link: quic, tcp, or auto (the default), which
	// is QUIC, and TCP where QUIC does not get through.
	Carrier string `yaml:"carrier"`

	// Connections is the number of bulk connections, 1 to 16. 0, the
	// default, lets the line decide.
	Connections int `yaml:"connections"`

	// Weights say how what crosses shares the link. They change on reload.
	Weights Weights `yaml:"weights"`
}

// Weights of what crosses, 1 to 65536. What is urgent and the frames of segments
// go before all of it; of the rest each class that has something to send gets the
// part of the link that its weight is of theirs, and moves share it.
type Weights struct {
	Tail   int `yaml:"tail"`   // the rest of a VM that stands still; 2048 if not given
	Memory int `yaml:"memory"` // of VMs that run; 64 if not given
	Disk   int `yaml:"disk"`   // blocks of disks; 16 if not given
	Seed   int `yaml:"seed"`   // images, and what gateways tell each other of them; 1 if not given
}

// Tunnel is the weights as the tunnel wants them.
func (w Weights) Tunnel() tunnel.Weights {
	return tunnel.Weights{Tail: w.Tail, Memory: w.Memory, Disk: w.Disk, Seed: w.Seed}
}

// Window is a part of the day on some days of the week.
type Window struct {
	Days string         `yaml:"days"` // "mon-fri" or "sat, sun"; each day if not given
	Time string         `yaml:"time"` // "08:00-18:00"; "22:00-06:00" ends on the next day
	Rate *conffile.Rate `yaml:"rate"` // as of the link; 0 for no cap, which has to be said
}

// Store is the content that this gateway and a peer both know.
type Store struct {
	// Memory bounds what is in memory of it, for each peer. 512MiB if not
	// given, at least 8MiB.
	Memory conffile.Size `yaml:"memory"`

	// Disk bounds what is on disk of it, below Dir, for each peer. 16GiB if
	// not given, at least 8MiB.
	Disk conffile.Size `yaml:"disk"`

	Seed Seed `yaml:"seed"`
}

// Seed is content of this site that its peers are to know: templates, ISO files
// and disk images.
type Seed struct {
	// Dirs are directories whose files are kept seeded: new and changed ones are
	// noticed within a minute. What is kept of them takes up to Store.Disk once
	// more.
	Dirs []string `yaml:"dirs"`

	// Rate caps what of them crosses to each peer, in bits per second. 0, the
	// default, is no cap but that of the link; beside moves it gets what link.weights say.
	Rate conffile.Rate `yaml:"rate"`

	// ReadRate bounds what is read of the disks that images lie on, in bits per second, by
	// these directories and by `longhaul store seed` unless that says another. 0, the default, is no bound.
	ReadRate conffile.Rate `yaml:"read_rate"`

	// Local sends nothing of them: only what a peer has seeded as well becomes
	// known to both, by hashes.
	Local bool `yaml:"local"`
}

// Host is a hypervisor host of this site: the QEMUs that this gateway reaches
// by their QMP sockets, and how it starts one for a VM that arrives.
type Host struct {
	Name string `yaml:"name"`

	// Tenant is whose VMs it runs, one of Tenants. If not given, anybody's:
	// `longhaul migrate --tenant` says whose a VM is.
	Tenant string `yaml:"tenant"`

	// QMP are the sockets of VMs; QMPDir is a directory whose *.sock and
	// *.qmp are, which are found as they come and go.
	QMP    []string `yaml:"qmp"`
	QMPDir string   `yaml:"qmp_dir"`

	// Launch starts the destination of a move: a program and its arguments,
	// in which placeholders stand for what the move needs (internal/qemu/launch,
	// Expand). If not given, the source's own command line is run, if its
	// program is one of Emulators.
	Launch []string `yaml:"launch"`

	// Emulators are the programs that a peer may ask for by the source's
	// command line, as patterns of path.Match. Those that QEMU's packages
	// install, if not given.
	Emulators []string `yaml:"emulators"`

	// WorkDir is where destinations run: relative paths of a command line are
	// taken from here. "/" if not given.
	WorkDir string `yaml:"work_dir"`

	// Env is the environment of destinations and hooks, NAME=value, on top
	// of PATH. The gateway's own is not passed on.
	Env []string `yaml:"env"`

	// RunDir is the directory of the sockets of the QEMUs that we start.
	// The gateway's RunDir plus the host's name if not given.
	RunDir string `yaml:"run_dir"`

	// Before runs before a destination is started (to make its taps, say), and
	// the start fails with it. After runs after a process has been ended by
	// the gateway. A program and its arguments; see internal/qemu/host for
	// their environment.
	Before []string `yaml:"before"`
	After  []string `yaml:"after"`
}

// Segment is a Layer 2 network to stretch from this site. Name and VNI are
// the same at all sites.
type Segment struct {
	Name   string   `yaml:"name"`
	VNI    uint32   `yaml:"vni"`
	Bridge string   `yaml:"bridge"` // adopted if it exists, else made
	VLAN   uint16   `yaml:"vlan"`   // of the bridge, 1 to 4094; what has no tag if not given
	MTU    int      `yaml:"mtu"`    // bytes; 1500 if not given
	Sites  []string `yaml:"sites"`  // the other sites; all that the gateway comes to know if not given
	Mode   string   `yaml:"mode"`   // as l2ext.Mode; secure if not given

	Policy gateway.SegmentPolicy `yaml:"policy"` // what crosses, and where the guests' gateway is
}

// Forward is a local port that comes out at another site.
type Forward struct {
	Name   string `yaml:"name"`
	Listen string `yaml:"listen"` // tcp:HOST:PORT or unix:/path
	To     string `yaml:"to"`     // site
	Target string `yaml:"target"` // tcp:HOST:PORT or unix:/path, there
	Kind   string `yaml:"kind"`   // auto (the default), migration or tcp
	Tenant string `yaml:"tenant"` // whose VMs come through, one of Tenants; nobody's if not given
}

// L2 is what all segments share.
type L2 struct {
	// Carrier is the name of the TUN device through which the kernel's VXLAN
	// reaches the gateway. lhtun0 if not given; two gateways in one network
	// namespace need two.
	Carrier string `yaml:"carrier"`

	// Underlay is the address of this machine on a private network between the
	// sites, for segments in mode direct: the kernels send each other VXLAN
	// there, UDP port 14790, neither encrypted nor signed. The other sites are
	// told.
	Underlay string `yaml:"underlay"`
}

// Address is Underlay, invalid if it is not given.
func (l L2) Address() netip.Addr {
	a, _ := netip.ParseAddr(l.Underlay) // checked
	return a
}

// API is the socket that the longhaul command uses.
type API struct {
	Socket string `yaml:"socket"` // RunDir/api.sock if not given
	Group  string `yaml:"group"`  // whose members may use it; root's only if not given
}

// Metrics is for Prometheus. The API socket has /metrics too.
type Metrics struct {
	Listen string `yaml:"listen"` // TCP address, such as 127.0.0.1:9447; none if not given
}

// Log goes to stderr.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (the default), warn or error; changes on reload
	Format string `yaml:"format"` // text (the default) or json
}

// Load reads and checks the file at path.
func Load(path string) (Config, error) {
	var c Config
	if err := conffile.Load(path, &c); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("reading the config (longhaul init or longhaul join makes one; --config names another): %w", err)
		}
		return Config{}, err
	}
	return c.withDefaults(), nil
}

// Parse is Load of a file's content; name stands for the file in errors.
func Parse(name string, data []byte) (Config, error) {
	var c Config
	if err := conffile.Parse(name, data, &c); err != nil {
		return Config{}, err
	}
	return c.withDefaults(), nil
}

// Defaults that are more than a word.
const (
	defaultListen   = ":7447"
	defaultPatience = 10 * time.Minute // longer than a BGP reconvergence or a router's restart
	defaultMemory   = 512 << 20
	defaultDisk     = 16 << 30
	minMemory       = 8 << 20 // dedup takes no less
	maxConnections  = 16
)

func (c Config) withDefaults() Config {
	c.Gateway = cmp.Or(c.Gateway, "gw1")
	c.PKI = cmp.Or(c.PKI, "/etc/longhaul/pki")
	c.Dir = cmp.Or(c.Dir, "/var/lib/longhaul")
	c.RunDir = cmp.Or(c.RunDir, "/run/longhaul")
	c.Listen = cmp.Or(c.Listen, defaultListen)
	c.Link.Carrier = cmp.Or(c.Link.Carrier, string(tunnel.Auto))
	c.Link.Weights = Weights(c.Link.Weights.Tunnel().WithDefaults())
	c.Link.Patience = cmp.Or(c.Link.Patience, conffile.Duration(defaultPatience))
	c.Store.Memory = cmp.Or(c.Store.Memory, defaultMemory)
	c.Store.Disk = cmp.Or(c.Store.Disk, defaultDisk)
	c.API.Socket = cmp.Or(c.API.Socket, c.RunDir+"/api.sock")
	c.L2.Carrier = cmp.Or(c.L2.Carrier, hostnet.DefaultTun)
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "text")
	if c.ForwardAllow == nil {
		c.ForwardAllow = []string{"tcp:localhost:*", "unix:" + c.RunDir + "/forward/"}
	}
	c.Hosts = slices.Clone(c.Hosts)
	for i := range c.Hosts {
		h := &c.Hosts[i]
		h.RunDir = cmp.Or(h.RunDir, c.RunDir+"/"+h.Name)
		h.WorkDir = cmp.Or(h.WorkDir, "/")
		if len(h.Emulators) == 0 {
			h.Emulators = launch.DefaultEmulators()
		}
	}
	c.Segments = slices.Clone(c.Segments)
	for i := range c.Segments {
		s := &c.Segments[i]
		s.MTU = cmp.Or(s.MTU, 1500)
	}
	c.Forwards = slices.Clone(c.Forwards)
	for i := range c.Forwards {
		c.Forwards[i].Kind = cmp.Or(c.Forwards[i].Kind, "auto")
	}
	return c
}

// View is the segment as the gateway wants it.
func (s Segment) View() gateway.Segment {
	return gateway.Segment{Name: s.Name, VNI: s.VNI, Bridge: s.Bridge, VLAN: s.VLAN, MTU: s.MTU, Sites: s.Sites, Mode: s.Mode, Policy: s.Policy}
}

// View is the forward as the gateway wants it.
func (f Forward) View() gateway.Forward {
	return gateway.Forward{Name: f.Name, Listen: f.Listen, To: f.To, Target: f.Target, Kind: f.Kind, Tenant: f.Tenant}
}
