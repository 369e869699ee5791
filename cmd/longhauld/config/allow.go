package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A rule says where forwards of other sites may come out. Its forms:
//
//	tcp:HOST:PORTS    HOST is a name, an IP, a prefix such as 10.0.0.0/24 or
//	                  [2001:db8::/32], or localhost for the whole loopback;
//	                  PORTS is a port, a range such as 49152-49215, or *
//	unix:/path        this socket
//	unix:/dir/        any socket below the directory
//
// A name matches only itself: it is never looked up here, so that nobody's
// DNS decides what is allowed.
type rule struct {
	host      string       // as written, lower case
	prefix    netip.Prefix // valid if host is an IP or a prefix
	low, high uint16       // ports
	path      string       // of a socket, or of a directory with its slash
}

func parseRule(text string) (r rule, err error) {
	network, rest, _ := strings.Cut(text, ":")
	switch network {
	case "unix":
		if !filepath.IsAbs(rest) {
			return r, fmt.Errorf("%q: the path is not absolute", text)
		}
		r.path = filepath.Clean(rest)
		if strings.HasSuffix(rest, "/") && r.path != "/" {
			r.path += "/"
		}
		return r, nil
	case "tcp":
		return parseTCPRule(text, rest)
	}
	return r, fmt.Errorf("%q: want tcp:HOST:PORTS or unix:/path", text)
}

func parseTCPRule(text, rest string) (r rule, err error) {
	host, ports, err := net.SplitHostPort(rest)
	if err != nil || host == "" {
		return r, fmt.Errorf("%q: want tcp:HOST:PORTS", text)
	}
	r.host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		r.prefix = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen())
	} else if p, err := netip.ParsePrefix(host); err == nil {
		r.prefix = p.Masked()
	} else if strings.Contains(host, "/") {
		return r, fmt.Errorf("%q: %s is no prefix", text, host)
	}
	if ports == "*" {
		r.low, r.high = 1, 65535
		return r, nil
	}
	low, high, ok := strings.Cut(ports, "-")
	if !ok {
		high = low
	}
	l, err1 := strconv.ParseUint(low, 10, 16)
	h, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || l == 0 || l > h {
		return r, fmt.Errorf("%q: %q is no port, range of ports or *", text, ports)
	}
	r.low, r.high = uint16(l), uint16(h)
	return r, nil
}

func (r rule) allowsTCP(host string, port uint16) bool {
	if r.path != "" || port < r.low || port > r.high {
		return false
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, r.host)
	}
	ip = ip.Unmap()
	if r.host == "localhost" {
		return ip.IsLoopback()
	}
	return r.prefix.IsValid() && r.prefix.Contains(ip)
}

func (r rule) allowsUnix(path string) bool {
	if strings.HasSuffix(r.path, "/") {
		return strings.HasPrefix(path, r.path)
	}
	return r.path == path
}

// errNotAllowed is what a peer is told.
var errNotAllowed = errors.New("forward_allow of this site does not permit it")

// AllowForward tells whether a forward of another site may come out at an
// address of this site: the network is tcp or unix. The socket of the API is
// never allowed, whatever the rules say: it would give this site away.
func (c Config) AllowForward(network, address string) error {
	var match func(rule) bool
	switch network {
	case "tcp":
		host, text, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("forward to %q: %w", address, err)
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("forward to %q: port %q is none", address, text)
		}
		match = func(r rule) bool { return r.allowsTCP(host, uint16(port)) }
	case "unix":
		path := filepath.Clean(address)
		if !filepath.IsAbs(path) || c.isAPI(path) {
			return fmt.Errorf("forward to %q: %w", address, errNotAllowed)
		}
		match = func(r rule) bool { return r.allowsUnix(path) }
	default:
		return fmt.Errorf("forward to network %q: %w", network, errNotAllowed)
	}
	for _, text := range c.ForwardAllow {
		if r, err := parseRule(text); err == nil && match(r) {
			return nil
		}
	}
	return fmt.Errorf("forward to %s:%s: %w", network, address, errNotAllowed)
}

// isAPI sees through links.
func (c Config) isAPI(path string) bool {
	if path == filepath.Clean(c.API.Socket) {
		return true
	}
	a, err1 := os.Stat(path)
	b, err2 := os.Stat(c.API.Socket)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}
