package l2ext

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// tellLeave bounds how long the other sites are told that a segment ends here.
const tellLeave = 2 * time.Second

// Dependent is a host for which a segment must stay stretched.
type Dependent struct {
	Binding
	Why string
}

// Path is the way of a host's traffic to other networks.
type Path struct {
	Egress  string // site at which it leaves the segment; "" when nobody has said where the gateway is
	Ingress string // site at which it enters
}

// path goes by the policy: guests reach the gateway that is at their home site,
// or one that is at each site; what comes from elsewhere arrives at the home
// site, unless a route to each host leads to where it is.
func (p Policy) path(site string) Path {
	switch {
	case p.Gateway == GatewayAnycast && p.HostRoutes:
		return Path{Egress: site, Ingress: site}
	case p.Gateway == GatewayAnycast:
		return Path{Egress: site, Ingress: p.Home}
	}
	return Path{Egress: p.Home, Ingress: p.Home}
}

// Path of the hosts of a segment, by the site at which they are.
func (v View) Path(site string) Path { return v.Policy.path(site) }

// Dependents lists the hosts of the segment for which it must stay stretched, by
// MAC: all that are not at the home site of the segment, or, without one, at this
// site, and those that a job moves now. The gateways' own machines do not count. Of
// sites that are Unheard there may be others.
func (v View) Dependents(self string) (ds []Dependent) {
	home := cmp.Or(v.Policy.Home, self)
	for _, b := range v.Bindings {
		moves := b.State == Pending || b.State == Flipped
		if b.Site == home && !moves || v.isMachine(b.MAC) {
			continue
		}
		why := "is at site " + b.Site
		switch {
		case moves:
			why = fmt.Sprintf("is being moved by job %s, and is at site %s", b.Job, b.Site)
		case b.Job != "":
			why = fmt.Sprintf("has moved to site %s and is away from home", b.Site)
		case v.Policy.Gateway != GatewayAnycast && v.Policy.Home != "":
			why = fmt.Sprintf("is at site %s and uses the gateway at %s", b.Site, home)
		}
		ds = append(ds, Dependent{Binding: b, Why: why})
	}
	slices.SortFunc(ds, func(a, b Dependent) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return ds
}

// isMachine tells the bridges of the gateways' machines, as far as they have no
// address: one that has is a host like any other.
func (v View) isMachine(mac MAC) bool {
	return slices.ContainsFunc(v.Bindings, func(b Binding) bool { return b.MAC == mac && len(b.IPs) == 0 }) &&
		slices.Contains(v.Machines, mac)
}

// Leave tells the other sites of a segment that no host of this site can be
// reached on it any more. It is called before the segment is taken from the
// wish; a site that is not told keeps its bindings until the hosts are seen
// elsewhere. Until the next Apply what the hosts of this site still say there tells
// nothing.
func (m *Manager) Leave(ctx context.Context, name string) error {
	var seg *segment
	var gone []announce.Record
	err := m.call(ctx, func() error {
		for _, s := range m.segments() {
			if s.Name == name {
				seg = s
			}
		}
		if seg == nil {
			return fmt.Errorf("l2ext: leaving segment %s: there is none", name)
		}
		seg.mu.Lock()
		defer seg.mu.Unlock()
		now := time.Now()
		seg.left = true
		for _, b := range seg.table.byMAC {
			if b.rec.Site == m.cfg.Site && !b.withdrawn() {
				gone = append(gone, seg.table.withdraw(now, b))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellLeave)
	defer cancel()
	for _, site := range seg.Sites {
		for chunk := range slices.Chunk(gone, announce.MaxRecords) {
			b, err := announce.Message{Kind: announce.Update, VNI: seg.VNI, Records: chunk}.Append(nil)
			if err != nil {
				return fmt.Errorf("leaving segment %s: %w", name, err)
			}
			// Not by the queue, which ends with the segment.
			if err := m.cfg.Carrier.SendUrgent(ctx, site, b); err != nil {
				m.log.Info("site not told that a segment ends here", "segment", name, "peer", site, "err", err)
				break
			}
		}
	}
	return nil
}
