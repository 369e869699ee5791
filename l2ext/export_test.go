package l2ext

import "context"

// Forge sends a frame to a site as it is, without a look at it, as a gateway would that
// is no friend. It is for tests of what the other site makes of it.
func (m *Manager) Forge(vni uint32, site string, frame []byte, redirected bool) {
	m.send(m.segments()[vni], site, parcel{frame: frame}, sending{redirected: redirected})
}

// Jobs is how many jobs are known, those between other sites among them.
func (m *Manager) Jobs(ctx context.Context) (n int) {
	_ = m.call(ctx, func() error { n = len(m.jobs); return nil }) // fails only when it does not run
	return n
}
