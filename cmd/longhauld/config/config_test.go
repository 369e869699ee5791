package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/conffile"
)

const full = `
site: a
gateway: gw2
pki: /srv/pki
dir: /srv/state
run_dir: /run/lh
listen: "192.0.2.1:7000"
address: ["gw-a.example.net:7000", "[2001:db8::1]:7000"]
peers:
  - site: b
    address: ["gw-b.example.net:7447"]
  - site: c
    address: ["192.0.2.3:7447", "192.0.2.4:7447"]
    carrier: tcp
link:
  carrier: quic
  rate: 200Mbit
  patience: 20m
  connections: 8
  weights: {disk: 8}
store:
  memory: 1GiB
  disk: 100GiB
hosts:
  - name: kvm1
    qmp: ["/run/qemu/db1.qmp"]
    qmp_dir: /run/qemu
    launch: ["/usr/local/bin/start-vm", "{name}", "{qmp}"]
    emulators: ["/usr/bin/qemu-system-x86_64"]
    run_dir: /run/kvm1
    work_dir: /srv/vm
    env: ["LANG=C"]
    before: ["/bin/true"]
    after: ["/bin/true"]
segments:
  - name: prod
    vni: 100
    bridge: br-prod
    vlan: 4094
    mtu: 1450
    sites: [b]
    policy:
      home: b
      gateway: anycast
      gateway_ips: [10.0.0.1, 'fd00::1']
      host_route: [/usr/local/sbin/host-route, -q]
      limits: {resolve: 1000}
forwards:
  - name: mig
    listen: tcp:127.0.0.1:49300
    to: b
    target: unix:/run/longhaul/forward/x
    kind: migration
forward_allow: ["tcp:10.0.0.0/8:49152-49215"]
l2:
  carrier: tun9
api:
  socket: /run/lh/a.sock
  group: adm
metrics:
  listen: 127.0.0.1:9447
log:
  level: debug
  format: json
`

func TestEveryKey(t *testing.T) {
	got, err := Parse("full", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Site: "a", Gateway: "gw2", PKI: "/srv/pki", Dir: "/srv/state", RunDir: "/run/lh",
		Listen: "192.0.2.1:7000", Address: []string{"gw-a.example.net:7000", "[2001:db8::1]:7000"},
		Peers: []Peer{
			{Site: "b", Address: []string{"gw-b.example.net:7447"}},
			{Site: "c", Address: []string{"192.0.2.3:7447", "192.0.2.4:7447"}, Carrier: "tcp"},
		},
		Link:  Link{Rate: 200_000_000, Patience: conffile.Duration(20 * time.Minute), Carrier: "quic", Connections: 8, Weights: Weights{Tail: 2048, Memory: 64, Disk: 8, Seed: 1}},
		Store: Store{Memory: 1 << 30, Disk: 100 << 30},
		Hosts: []Host{{
			Name: "kvm1", QMP: []string{"/run/qemu/db1.qmp"}, QMPDir: "/run/qemu",
			Launch:    []string{"/usr/local/bin/start-vm", "{name}", "{qmp}"},
			Emulators: []string{"/usr/bin/qemu-system-x86_64"}, RunDir: "/run/kvm1",
			WorkDir: "/srv/vm", Env: []string{"LANG=C"},
			Before: []string{"/bin/true"}, After: []string{"/bin/true"},
		}},
		Segments: []Segment{{Name: "prod", VNI: 100, Bridge: "br-prod", VLAN: 4094, MTU: 1450, Sites: []string{"b"}, Policy: gateway.SegmentPolicy{
			Home: "b", Gateway: "anycast", GatewayIPs: []string{"10.0.0.1", "fd00::1"},
			HostRoute: []string{"/usr/local/sbin/host-route", "-q"}, Limits: gateway.SegmentLimits{Resolve: 1000},
		}}},
		Forwards:     []Forward{{Name: "mig", Listen: "tcp:127.0.0.1:49300", To: "b", Target: "unix:/run/longhaul/forward/x", Kind: "migration"}},
		ForwardAllow: []string{"tcp:10.0.0.0/8:49152-49215"},
		L2:           L2{Carrier: "tun9"},
		API:          API{Socket: "/run/lh/a.sock", Group: "adm"},
		Metrics:      Metrics{Listen: "127.0.0.1:9447"},
		Log:          Log{Level: "debug", Format: "json"},
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Error(d)
	}
}

func TestDefaults(t *testing.T) {
	got, err := Parse("least", []byte("site: a\npeers: [{site: b, address: ['x:1']}]\nhosts: [{name: h, qmp_dir: /q}]\nsegments: [{name: s, vni: 1, bridge: br}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Site: "a", Gateway: "gw1", PKI: "/etc/longhaul/pki", Dir: "/var/lib/longhaul", RunDir: "/run/longhaul",
		Listen: ":7447", Peers: []Peer{{Site: "b", Address: []string{"x:1"}}},
		Link:  Link{Patience: conffile.Duration(10 * time.Minute), Carrier: "auto", Weights: Weights{Tail: 2048, Memory: 64, Disk: 16, Seed: 1}},
		Store: Store{Memory: 512 << 20, Disk: 16 << 30},
		Hosts: []Host{{Name: "h", QMPDir: "/q", RunDir: "/run/longhaul/h", WorkDir: "/",
			Emulators: []string{"/usr/bin/qemu-system-*", "/usr/local/bin/qemu-system-*", "/usr/libexec/qemu-kvm"}}},
		Segments:     []Segment{{Name: "s", VNI: 1, Bridge: "br", MTU: 1500}},
		ForwardAllow: []string{"tcp:localhost:*", "unix:/run/longhaul/forward/"},
		L2:           L2{Carrier: "lhtun0"},
		API:          API{Socket: "/run/longhaul/api.sock"},
		Log:          Log{Level: "info", Format: "text"},
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Error(d)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "f: site: is missing"},
		{"unknown key", "site: a\nsites: b\n", "f:2:1: sites: "},
		{"unknown key within", "site: a\nlink:\n  speed: 1Mbit\n", "f:3:3: link.speed: "},
		{"wrong unit", "site: a\nlink:\n  rate: 200Mb\n", "f:3:9: link.rate: rate \"200Mb\": unknown unit"},
		{"name of site", "site: A\n", `f:1:1: site: name "A"`},
		{"listen", "site: a\nlisten: 7447\n", "f:2:1: listen: "},
		{"port", "site: a\nlisten: ':70000'\n", "f:2:1: listen: "},
		{"relative path", "site: a\ndir: var\n", `f:2:1: dir: "var" is not an absolute path`},
		{"itself as peer", "site: a\npeers:\n  - site: a\n    address: ['x:1']\n", "f:3:5: peers[0].site: a is this site"},
		{"peer twice", "site: a\npeers:\n  - {site: b, address: ['x:1']}\n  - {site: b, address: ['x:2']}\n", "f:4:6: peers[1].site: b is there twice"},
		{"peer without address", "site: a\npeers: [{site: b}]\n", "peers[0].address: is missing"},
		{"peer without port", "site: a\npeers: [{site: b, address: [gw]}]\n", `peers[0].address[0]: "gw": want HOST:PORT`},
		{"connections", "site: a\nlink: {connections: 17}\n", "link.connections: 17"},
		{"carrier", "site: a\nlink: {carrier: sctp}\n", "link.carrier: carrier \"sctp\": auto, quic or tcp"},
		{"carrier of a peer", "site: a\npeers: [{site: b, address: ['x:1'], carrier: udp}]\n", "peers[0].carrier: carrier \"udp\""},
		{"memory", "site: a\nstore: {memory: 1MiB}\n", "store.memory: 1MiB is too little"},
		{"disk", "site: a\nstore: {disk: 1MiB}\n", "store.disk: 1MiB is too little"},
		{"directory of images", "site: a\nstore: {seed: {dirs: [/srv, tpl]}}\n", `store.seed.dirs[1]: "tpl" is not an absolute path`},
		{"host without VMs", "site: a\nhosts: [{name: h}]\n", "hosts[0]: needs qmp or qmp_dir"},
		{"host twice", "site: a\nhosts: [{name: h, qmp_dir: /q}, {name: h, qmp_dir: /r}]\n", "hosts[1].name: h is there twice"},
		{"tenant's name", "site: a\ntenants: [Acme]\n", `tenants[0]: "Acme": small letters`},
		{"tenant twice", "site: a\ntenants: [acme, acme]\n", "tenants[1]: acme is there twice"},
		{"host of nobody", "site: a\nhosts: [{name: h, qmp_dir: /q, tenant: acme}]\n", `hosts[0].tenant: "acme" is none of the tenants`},
		{"forward of nobody", "site: a\nforwards: [{name: f, listen: 'tcp::1', to: b, target: 'tcp:h:1', tenant: acme}]\n", `forwards[0].tenant: "acme" is none of the tenants`},
		{"too many tenants", "site: a\ntenants: [acme]\nstore: {memory: 15MiB}\n", "leave less than 8MiB for each of 1 tenants"},
		{"launcher", "site: a\nhosts: [{name: h, qmp_dir: /q, launch: [start]}]\n", `hosts[0].launch[0]: "start" is not an absolute path`},
		{"empty launcher", "site: a\nhosts: [{name: h, qmp_dir: /q, launch: []}]\n", "hosts[0].launch: is empty"},
		{"placeholder", "site: a\nhosts: [{name: h, qmp_dir: /q, launch: [/x, '{vm}', '{qmp}']}]\n", `hosts[0].launch[1]: "{vm}" is none of {name}`},
		{"no monitor", "site: a\nhosts: [{name: h, qmp_dir: /q, launch: [/x, '{name}']}]\n", "hosts[0].launch: {qmp} is nowhere in it"},
		{"environment", "site: a\nhosts: [{name: h, qmp_dir: /q, env: [LANG]}]\n", `hosts[0].env[0]: "LANG": want NAME=value`},
		{"pattern", "site: a\nhosts: [{name: h, qmp_dir: /q, emulators: ['/[']}]\n", `hosts[0].emulators[0]: "/["`},
		{"own site", "site: a\nsegments: [{name: s, vni: 1, bridge: br, sites: [a]}]\n", "segments[0].sites[0]: a is this site"},
		{"carrier", "site: a\nl2: {carrier: a/b}\n", `l2.carrier: "a/b" is no name`},
		{"policy", "site: a\nsegments: [{name: s, vni: 1, bridge: br, policy: {gateway: nowhere}}]\n", `segments[0].policy: gateway "nowhere"`},
		{"gateway's MAC", "site: a\nsegments: [{name: s, vni: 1, bridge: br, policy: {gateway_mac: x}}]\n", `segments[0].policy: gateway_mac "x"`},
		{"streams in direct", "site: a\nl2: {underlay: 10.1.0.1}\nsegments: [{name: s, vni: 1, bridge: br, mode: direct, policy: {streams: \"on\"}}]\n", "segments[0].policy.streams: streams on needs mode secure"},
		{"home", "site: a\nsegments: [{name: s, vni: 1, bridge: br, sites: [b], policy: {home: d}}]\n", "segments[0].policy.home: d is neither this site nor one of the segment's sites"},
		{"policy's key", "site: a\nsegments: [{name: s, vni: 1, bridge: br, policy: {getaway: home}}]\n", "getaway"},
		{"VNI", "site: a\nsegments: [{name: s, vni: 16777216, bridge: br}]\n", "segments[0].vni: 16777216"},
		{"bridge", "site: a\nsegments: [{name: s, vni: 1, bridge: a-name-too-long-for-linux}]\n", "segments[0].bridge"},
		{"VNI twice", "site: a\nsegments: [{name: s, vni: 1, bridge: x}, {name: t, vni: 1, bridge: y}]\n", "segments[1]: shares its name or VNI with s"},
		{"VLAN", "site: a\nsegments: [{name: s, vni: 1, bridge: br, vlan: 4095}]\n", "segments[0].vlan: 4095: 1 to 4094"},
		{"no VLAN", "site: a\nsegments: [{name: s, vni: 1, bridge: br, vlan: -1}]\n", "segments[0].vlan: number -1"},
		{"VLAN in direct", "site: a\nl2: {underlay: 10.1.0.1}\nsegments: [{name: s, vni: 1, bridge: br, vlan: 7, mode: direct}]\n", "segments[0].vlan: 7: not in mode direct"},
		{"VLAN twice", "site: a\nsegments: [{name: s, vni: 1, bridge: x, vlan: 7}, {name: t, vni: 2, bridge: x, vlan: 7}]\n", "segments[1]: shares its bridge with s"},
		{"bridge twice", "site: a\nsegments: [{name: s, vni: 1, bridge: x}, {name: t, vni: 2, bridge: x}]\n", "segments[1]: shares its bridge with s"},
		{"modes of a bridge", "site: a\nsegments: [{name: s, vni: 1, bridge: x}, {name: t, vni: 2, bridge: x, vlan: 7, mode: secure-fast}]\n", "segments[1].mode: shares its bridge with s"},
		{"forward's kind", "site: a\nforwards: [{name: f, listen: 'tcp::1', to: b, target: 'tcp:h:1', kind: udp}]\n", `forwards[0].kind: "udp" is none of`},
		{"forward's address", "site: a\nforwards: [{name: f, listen: 'udp::1', to: b, target: 'tcp:h:1'}]\n", `forwards[0].listen: "udp::1"`},
		{"forward to itself", "site: a\nforwards: [{name: f, listen: 'tcp::1', to: a, target: 'tcp:h:1'}]\n", "forwards[0].to: a is this site"},
		{"long path", "site: a\nforwards: [{name: f, listen: 'unix:/" + strings.Repeat("x", 107) + "', to: b, target: 'tcp:h:1'}]\n", "at most 107 bytes"},
		{"rule", "site: a\nforward_allow: ['tcp:10.0.0.0/40:*']\n", "forward_allow[0]: "},
		{"level", "site: a\nlog: {level: loud}\n", `log.level: "loud" is none of debug, info`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want %q", err, tt.want)
			}
		})
	}
}

// All that is wrong is told at once.
func TestAllErrors(t *testing.T) {
	_, err := Parse("f", []byte("site: A\ndir: x\nlog: {level: loud}\n"))
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d errors: %v", n, err)
	}
}

func TestAllowForward(t *testing.T) {
	dir := t.TempDir()
	api := filepath.Join(dir, "api.sock")
	if err := os.WriteFile(api, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(api, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		rule, network, address string
		want                   bool
	}{
		{"tcp:localhost:*", "tcp", "127.0.0.1:49300", true},
		{"tcp:localhost:*", "tcp", "127.9.9.9:1", true},
		{"tcp:localhost:*", "tcp", "[::1]:1", true},
		{"tcp:localhost:*", "tcp", "[::ffff:127.0.0.1]:1", true},
		{"tcp:localhost:*", "tcp", "LocalHost:1", true},
		{"tcp:localhost:*", "tcp", "10.0.0.1:1", false},
		{"tcp:localhost:*", "tcp", "localhost.example.net:1", false},
		{"tcp:localhost:*", "tcp", ":1", false},
		{"tcp:localhost:*", "tcp", "0.0.0.0:1", false},
		{"tcp:localhost:*", "tcp", "127.0.0.1:0", false},
		{"tcp:localhost:*", "unix", "/run/x", false},
		{"tcp:10.0.0.0/8:49152-49215", "tcp", "10.1.2.3:49152", true},
		{"tcp:10.0.0.0/8:49152-49215", "tcp", "10.1.2.3:49216", false},
		{"tcp:10.0.0.0/8:49152-49215", "tcp", "11.1.2.3:49152", false},
		{"tcp:10.0.0.7:80", "tcp", "10.0.0.7:80", true},
		{"tcp:10.0.0.7:80", "tcp", "10.0.0.8:80", false},
		{"tcp:[2001:db8::/32]:80", "tcp", "[2001:db8::7]:80", true},
		{"tcp:kvm1.example:80", "tcp", "kvm1.example:80", true},
		{"tcp:kvm1.example:80", "tcp", "kvm2.example:80", false},
		{"unix:/run/f/", "unix", "/run/f/x.sock", true},
		{"unix:/run/f/", "unix", "/run/f/../x.sock", false},
		{"unix:/run/f/", "unix", "/run/ff", false},
		{"unix:/run/f", "unix", "/run/f", true},
		{"unix:/run/f", "unix", "/run/f/x", false},
		{"unix:/run/f", "unix", "run/f", false},
		{"unix:" + dir + "/", "unix", dir + "/other.sock", true},
		{"unix:" + dir + "/", "unix", dir + "/./api.sock", false},
		{"unix:" + dir + "/", "unix", dir + "/link", false},
		{"unix:" + dir + "/", "udp", dir + "/x", false},
	} {
		c := Config{ForwardAllow: []string{tt.rule}, API: API{Socket: api}}
		if err := c.AllowForward(tt.network, tt.address); (err == nil) != tt.want {
			t.Errorf("%s: %s %s: %v", tt.rule, tt.network, tt.address, err)
		}
	}
}

func TestReload(t *testing.T) {
	old, err := Parse("old", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("200Mbit", "50Mbit", "level: debug", "level: warn",
		"disk: 8", "disk: 32", "20m", "30m", "vni: 100", "vni: 101", "group: adm", "group: kvm").Replace(full)
	next, err := Parse("new", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	now, restart := old.Reload(next)
	want := old
	want.Link.Rate, want.Log.Level = 50_000_000, "warn"
	want.Link.Weights.Disk = 32
	if d := cmp.Diff(now, want); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(restart, []string{"link.patience", "segments", "api.group"}); d != "" {
		t.Error(d)
	}
	if _, restart := now.Reload(now); restart != nil {
		t.Errorf("the same config wants a restart for %v", restart)
	}
}

func TestStarter(t *testing.T) {
	for _, s := range []Starter{
		{Site: "a", Gateway: "gw1", PKI: "/etc/longhaul/pki", Address: "gw-a.example.net:7448"},
		{Site: "b", Gateway: "gw1", PKI: `/odd "dir"`, Peers: []Peer{{Site: "a", Address: []string{"x:1", "[::1]:2"}}}},
	} {
		text := s.Render()
		got, err := Parse("starter", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if got.Site != s.Site || got.Gateway != s.Gateway || got.PKI != s.PKI || !cmp.Equal(got.Peers, s.Peers) {
			t.Errorf("%+v is read as %+v", s, got)
		}
		if s.Address != "" && (got.Listen != ":7448" || !cmp.Equal(got.Address, []string{s.Address})) {
			t.Errorf("listen %s, address %s", got.Listen, got.Address)
		}
		// Keys stand in comments as "#key", text as "# text". They work as well.
		var b strings.Builder
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "#"); ok && (rest[0] != ' ' || strings.HasPrefix(rest, "  ")) {
				line = rest
			}
			b.WriteString(line)
		}
		if s.Address == "" {
			continue
		}
		got, err = Parse("starter, all of it", []byte(b.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if got.Link.Rate != 200_000_000 || len(got.Hosts) != 1 || len(got.Segments) != 1 || len(got.Forwards) != 1 || len(got.Peers) != 1 {
			t.Errorf("comments hold %+v", got)
		}
	}
}

// The examples that are shipped load.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../../deploy/config/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, f := range files {
		if _, err := Load(f); err != nil {
			t.Errorf("%v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add(Starter{Site: "a", Gateway: "gw1", PKI: "/p", Address: "h:1"}.Render())
	f.Add([]byte("site: a\nhosts: [{name: h, qmp_dir: /q, launch: ['/x', '{qmp}']}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("fuzz", b)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("a config that was taken is refused: %v", err)
		}
		c.AllowForward("tcp", "127.0.0.1:1")
		c.AllowForward("unix", "/run/x")
	})
}

func TestPaths(t *testing.T) {
	const good = "site: a\npeers:\n  - site: b\n    paths:\n      - {name: mpls, source: 10.0.0.1, address: [\"10.1.0.1:7447\"], rate: 200Mbit}\n" +
		"      - {name: internet, address: [\"gw-b.example.net:7447\"], cost: 1}\n"
	c, err := Parse("good", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := []Path{
		{Name: "mpls", Source: "10.0.0.1", Address: []string{"10.1.0.1:7447"}, Rate: 200_000_000},
		{Name: "internet", Address: []string{"gw-b.example.net:7447"}, Cost: 1},
	}
	if d := cmp.Diff(c.Peers[0].Paths, want); d != "" {
		t.Error(d)
	}
	for _, tt := range []struct{ old, new, fails string }{
		{"name: internet", "name: mpls", "peers[0].paths[1].name: mpls is there twice"},
		{"10.0.0.1", "uplink1", "peers[0].paths[0].source: ParseAddr"},
		{"cost: 1", "cost: -1", "peers[0].paths[1].cost: -1 is negative"},
		{"10.1.0.1:7447", "10.1.0.1", "peers[0].paths[0].address[0]"},
		{"    paths:", "    address: [\"x:1\"]\n    paths:", "peers[0].paths: have the addresses; leave address out"},
	} {
		_, err := Parse("bad", []byte(strings.Replace(good, tt.old, tt.new, 1)))
		if err == nil || !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %v, want %s", tt.new, err, tt.fails)
		}
	}
}

// TestPathSource: from an address of one IP family nothing can be sent to one of the other.
func TestPathSource(t *testing.T) {
	const form = "site: a\npeers:\n  - site: b\n    paths:\n      - {name: mpls, source: %q, address: [%s]}\n"
	for _, tt := range []struct {
		source, address string
		wrong           string // the addresses, as the error has them
	}{
		{"10.0.0.1", `"10.1.0.1:7447"`, ""},
		{"fd00::1", `"[fd00::2]:7447"`, ""},
		{"fd00::1", `"10.1.0.1:7447", "[fd00::2]:7447"`, ""},
		{"fd00::1", `"gw-b.example.net:7447"`, ""},
		{"fd00::1", `"10.1.0.1:7447", "gw-b.example.net:7447"`, ""},
		{"10.0.0.1", `"[::ffff:10.1.0.1]:7447"`, ""},
		{"fd00::1", "", ""}, // the peer dials
		{"fd00::1", `"10.1.0.1:7447"`, "10.1.0.1:7447"},
		{"10.0.0.1", `"[fd00::2]:7447", "[fd00::3]:7447"`, "[fd00::2]:7447, [fd00::3]:7447"},
	} {
		_, err := Parse("x", fmt.Appendf(nil, form, tt.source, tt.address))
		want := fmt.Sprintf("peers[0].paths[0].source: %s: nothing can be sent from it to %s, of another IP family, over path mpls", tt.source, tt.wrong)
		switch {
		case tt.wrong == "" && err != nil:
			t.Errorf("from %s to %s: %v", tt.source, tt.address, err)
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("from %s to %s: %v, want %s", tt.source, tt.address, err, want)
		}
	}
}
