package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxName is the most bytes of a name of a fleet, site or gateway. Names are
// DNS labels and memberlist node names, of which 32 is short of any limit.
const maxName = 32

// CheckName refuses what cannot name a fleet, a site or a gateway: anything
// but [a-z0-9-]{1,32}.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > maxName {
		return fmt.Errorf("name %.40q: must have 1 to %d characters", name, maxName)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("name %q: %q is none of a-z, 0-9 and -", name, c)
		}
	}
	return nil
}

// serverSuffix marks a TLS server name as the name of a site. "internal" is
// reserved for private use, so it is nobody's domain.
const serverSuffix = ".longhaul.internal"

// ServerName is what a dialling side puts into tls.Config.ServerName to reach
// the site and no other.
func ServerName(site string) string { return site + serverSuffix }

// Hosts of the URI SANs: what a certificate is for.
const (
	hostSite  = "site"
	hostEnrol = "enrol"
)

func nameURI(host string, parts ...string) *url.URL {
	return &url.URL{Scheme: "longhaul", Host: host, Path: "/" + strings.Join(parts, "/")}
}

// certName takes apart the one URI SAN of a certificate, which must be for
// host and have n parts.
func certName(cert *x509.Certificate, host string, n int) ([]string, error) {
	if len(cert.URIs) != 1 {
		return nil, fmt.Errorf("certificate has %d URI names, want 1", len(cert.URIs))
	}
	u := cert.URIs[0]
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if u.String() != nameURI(host, parts...).String() || len(parts) != n {
		return nil, fmt.Errorf("certificate names %.200q, not longhaul://%s/…", u, host)
	}
	return parts, nil
}

// siteName is the site and the gateway that a certificate is for.
func siteName(cert *x509.Certificate) (site, gateway string, err error) {
	parts, err := certName(cert, hostSite, 2)
	if err != nil {
		return "", "", err
	}
	if err := errors.Join(CheckName(parts[0]), CheckName(parts[1])); err != nil {
		return "", "", fmt.Errorf("certificate: %w", err)
	}
	return parts[0], parts[1], nil
}
