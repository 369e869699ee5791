package config

import (
	"bytes"
	"fmt"
	"strings"
)

// Starter is what "longhaul init" and "longhaul join" know of a new gateway.
type Starter struct {
	Site, Gateway string
	PKI           string // directory of its identity
	Address       string // HOST:PORT at which other sites reach it; may be empty
	Peers         []Peer // sites to dial; may be none
}

// Render writes a config that works as it is, with the keys that an operator
// is likely to want next in comments.
func (s Starter) Render() []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# longhauld: the gateway of site %s. Check it with: longhauld --check-config", s.Site)
	p("# The link's rate, calendar and weights, the peers and log.level change on reload")
	p("# (longhaul reload), everything else on restart.")
	p("")
	p("site: %s", quote(s.Site))
	p("gateway: %s", quote(s.Gateway))
	p("pki: %s", quote(s.PKI))
	p("")
	p("# The one port that this site opens, in UDP and TCP, and where other sites reach it.")
	p("listen: %s", quote(s.listen()))
	if s.Address != "" {
		p("address: [%s]", quote(s.Address))
	} else {
		p("#address: [\"gw.example.net:7447\"]")
	}
	p("")
	p("# Sites to dial. It is enough that one of two sites can reach the other.")
	if len(s.Peers) == 0 {
		p("#peers:")
		p("#  - site: b")
		p("#    address: [\"gw-b.example.net:7447\"]")
	} else {
		p("peers:")
	}
	for _, peer := range s.Peers {
		p("  - site: %s", quote(peer.Site))
		var all []string
		for _, a := range peer.Address {
			all = append(all, quote(a))
		}
		p("    address: [%s]", strings.Join(all, ", "))
	}
	b.WriteString(starterRest)
	return b.Bytes()
}

// listen is the port of the address, on all interfaces.
func (s Starter) listen() string {
	if i := strings.LastIndex(s.Address, ":"); i >= 0 {
		return s.Address[i:]
	}
	return defaultListen
}

// quote makes a double-quoted YAML scalar: all of Go's escapes are YAML's too
// (YAML 1.2.2, section 5.7).
func quote(s string) string { return fmt.Sprintf("%q", s) }

const starterRest = `
# What the link may send, and how long a move waits for a WAN that is away.
#link:
#  rate: 200Mbit
#  patience: 10m
#  carrier: auto  # quic; tcp where QUIC does not get through

# What is kept for each other site, and directories of templates, ISO files and
# disk images that are kept known to all sites.
#store:
#  memory: 512MiB
#  disk: 16GiB
#  seed:
#    dirs: [/srv/templates]
#    rate: 50Mbit

# The QEMUs of this site: one QMP socket per VM (-qmp
# unix:/run/qemu/NAME.qmp,server=on,wait=off).
#hosts:
#  - name: kvm1
#    qmp_dir: /run/qemu

# Layer 2 networks that VMs keep when they move.
#segments:
#  - name: prod
#    vni: 100
#    bridge: br-prod
#    policy:
#      home: a            # where the rest of the network finds its hosts
#      streams: auto      # TCP by reliable streams: auto (on a line that loses packets), on, off

# Local ports that come out at another site: for virsh and QEMU by hand.
#forwards:
#  - name: mig
#    listen: tcp:127.0.0.1:49300
#    to: b
#    target: tcp:127.0.0.1:49300

# Where at this site the forwards of other sites may come out.
#forward_allow: ["tcp:localhost:*", "unix:/run/longhaul/forward/"]

#metrics:
#  listen: 127.0.0.1:9447

#log:
#  level: info
#  format: text
`
