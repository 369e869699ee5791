package cluster

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// nodePort is the port of all made-up addresses; memberlist wants one.
const nodePort = 1

// maxName is the most bytes of a site's or gateway's name, as in certificates.
const maxName = 32

// nodeName is what memberlist calls a gateway.
func nodeName(site, gateway string) string { return site + "/" + gateway }

// splitName takes a node's name apart.
func splitName(node string) (site, gateway string, err error) {
	site, gateway, _ = strings.Cut(node, "/")
	if !validName(site) || !validName(gateway) {
		return "", "", fmt.Errorf("node name %.80q is not SITE/GATEWAY", node)
	}
	return site, gateway, nil
}

func validName(s string) bool {
	plain := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) })
}

// siteIP is the address that memberlist knows a site by: a unique local one
// (RFC 4193) out of the hash of the site's name, the same at all gateways.
func siteIP(site string) net.IP {
	sum := sha256.Sum256([]byte("longhaul site " + site))
	ip := net.IP(sum[:16])
	ip[0] = 0xfd
	return ip
}

// siteAddr is siteIP with the port.
func siteAddr(site string) *net.UDPAddr { return &net.UDPAddr{IP: siteIP(site), Port: nodePort} }

// addrKey brings an address to the one form that maps go by.
func addrKey(hostport string) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(hostport)
	return ap.Addr(), err
}
