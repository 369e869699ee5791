package nbd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

const (
	defaultPort = "10809" // assigned by IANA
	maxName     = 4096    // bytes that a string may have, by the protocol
)

// Target is an export of a server.
type Target struct {
	Network, Address string // as net.Dial takes them
	Export           string // "" is the server's default
}

// ParseURI reads nbd://host[:port]/export or nbd+unix:///export?socket=PATH.
func ParseURI(uri string) (Target, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return Target{}, err
	}
	t, err := target(u)
	switch t.Export = strings.TrimPrefix(u.Path, "/"); {
	case err != nil:
	case u.User != nil || u.Fragment != "" || u.Opaque != "":
		err = errors.New("an address of NBD has no user, no fragment, and // after its scheme")
	case len(t.Export) > maxName:
		err = fmt.Errorf("name of an export of %d bytes; want at most %d", len(t.Export), maxName)
	}
	return t, err
}

func target(u *url.URL) (Target, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Target{}, err
	}
	socket := query.Get("socket")
	query.Del("socket")
	for key := range query {
		return Target{}, fmt.Errorf("parameter %q is not known", key)
	}
	switch {
	case u.Scheme == "nbds" || u.Scheme == "nbds+unix":
		return Target{}, fmt.Errorf("%s: TLS is not supported; want nbd or nbd+unix", u.Scheme)
	case u.Scheme == "nbd" && socket != "":
		return Target{}, errors.New("a socket goes with nbd+unix")
	case u.Scheme == "nbd" && u.Hostname() == "":
		return Target{}, errors.New("no host")
	case u.Scheme == "nbd":
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		return Target{Network: "tcp", Address: net.JoinHostPort(u.Hostname(), port)}, nil
	case u.Scheme == "nbd+unix" && u.Host != "":
		return Target{}, fmt.Errorf("host %q with a socket; want three slashes after the scheme", u.Host)
	case u.Scheme == "nbd+unix" && socket == "":
		return Target{}, errors.New("no parameter socket")
	case u.Scheme == "nbd+unix":
		return Target{Network: "unix", Address: socket}, nil
	}
	return Target{}, fmt.Errorf("scheme %q is not known; want nbd or nbd+unix", u.Scheme)
}
