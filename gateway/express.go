package gateway

import (
	"fmt"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/tunnel"
)

// express takes the sealed datagrams of segments in mode secure-fast to other
// sites, beside the link.
type express struct{ node *tunnel.Node }

// Secret is exported from the connection of the link in use.
func (e express) Secret(site string) (l2ext.Secret, error) {
	link := e.node.Link(site)
	if link == nil {
		return l2ext.Secret{}, fmt.Errorf("site %s: %w", site, ErrNoSite)
	}
	link.UseExpress()
	b, err := link.ExportSecret(l2ext.SecretLabel)
	return l2ext.Secret(b), err
}

// Size is the longest datagram of the path.
func (e express) Size(site string) int {
	link := e.node.Link(site)
	if link == nil {
		return 0
	}
	return link.ExpressSize()
}

// Send sends datagrams.
func (e express) Send(site string, b []byte, size int) error {
	link := e.node.Link(site)
	if link == nil {
		return fmt.Errorf("site %s: %w", site, ErrNoSite)
	}
	return link.SendExpress(b, size)
}
