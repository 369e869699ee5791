package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/longhaul-project/longhaul/dedup"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/shaper"
)

// Status sums this gateway up.
func (g *Gateway) Status(ctx context.Context) (Status, error) {
	st := Status{
		Site: g.cfg.Site, Gateway: g.cfg.Name, Version: g.cfg.Version, Since: g.since,
		Listen: g.cfg.Listen, Jobs: g.jobs.running(), Moves: g.jobs.ended(),
	}
	if g.cfg.CertEnd != nil {
		st.CertEnd = g.cfg.CertEnd()
	}
	for _, l := range g.node.Links() {
		st.Peers = append(st.Peers, g.peerStatus(l.Site()))
	}
	slices.SortFunc(st.Peers, func(a, b PeerStatus) int { return strings.Compare(a.Site, b.Site) })
	for _, h := range g.cfg.Hosts {
		hs := HostStatus{Name: h.Name()}
		vms, err := h.VMs(ctx)
		if err != nil {
			hs.Problem = err.Error()
		}
		hs.VMs = len(vms)
		st.Hosts = append(st.Hosts, hs)
	}
	st.Store, st.Left = g.storeStatus(), g.leftovers()
	d := g.node.Drops()
	st.Drops = PortDrops{Packets: d.Socket, Refused: d.Refused}
	return st, nil
}

// CodecTotals tells how what moves and forwards sent was compressed since the gateway
// started: a part for each setting that was used, the weakest first.
func (g *Gateway) CodecTotals() []CodecReport { return g.jobs.cores.works.report() }

// MoveTimes tells how long the moves took that have left this site and succeeded.
func (g *Gateway) MoveTimes() MoveTimes { return g.jobs.took() }

func (g *Gateway) peerStatus(site string) PeerStatus {
	link := g.node.Link(site)
	l := link.State()
	p := PeerStatus{
		Site: site, Address: l.Address, Alive: l.Up, Since: l.Since, Why: l.Why, Member: "unknown", Version: l.Version,
		RTT: float64(l.RTT.Microseconds()) / 1000, Conns: l.Conns, Rate: 8 * l.Rate, Goodput: 8 * l.Goodput,
		Carrier: string(l.Carrier), Fallback: l.Fallback, Controller: l.Controller, Sent: l.WireSent, Received: l.WireReceived,
	}
	p.FarFallback, p.FarController = l.FarFallback, l.FarController
	p.Paths, p.Classes = pathsOf(l), classesOf(l)
	p.Copied, p.Twice, p.Drops = l.Copied, l.Twice, linkDrops(l.Drops)
	if g.cfg.Members != nil {
		p.Member = g.cfg.Members(site)
	}
	return p
}

// classesOf shows what has been sent by class.
func classesOf(l tunnel.State) []Class {
	all := []Class{
		{Name: shaper.Urgent.String(), Sent: l.ByClass[shaper.Urgent].Sent},
		{Name: shaper.L2.String(), Sent: l.ByClass[shaper.L2].Sent},
	}
	for _, f := range l.Flows {
		all = append(all, Class{Name: f.Class.String(), Weight: f.Weight, Sent: f.Sent})
	}
	return all
}

// pathsOf shows the ways to a peer; one way is what the link shows itself.
func pathsOf(l tunnel.State) (paths []Path) {
	if len(l.Paths) < 2 {
		return nil
	}
	for _, p := range l.Paths {
		paths = append(paths, Path{
			Name: p.Name, Source: p.Source, Address: p.Address, Alive: p.Conns > 0 && !p.Dead, Why: p.Why, Urgent: p.Urgent, Conns: p.Conns,
			RTT: float64(p.RTT.Microseconds()) / 1000, Cost: p.Cost, Rate: 8 * p.Model.Rate, Carries: 8 * p.Model.Bandwidth,
			Sent: p.Wire.Sent, Received: p.Wire.Received,
		})
	}
	return paths
}

// storeStatus sums up what has been agreed on with peers, and images: what lies on disk of
// peers that were not reached yet is counted by StoreReport, for which files are looked at.
func (g *Gateway) storeStatus() StoreStatus {
	var sum StoreStatus
	for _, s := range g.agreed() {
		sum.add(s.Stats())
	}
	return g.withImages(sum)
}

func (sum *StoreStatus) add(st dedup.Stats) {
	sum.Pages += st.Pages()
	sum.Bytes += st.Bytes
	sum.Budget += st.Budget
	sum.Memory += st.Memory
	sum.Disk += st.Disk
}

// withImages adds the pool of images to what is held with peers.
func (g *Gateway) withImages(sum StoreStatus) StoreStatus {
	if sum.Budget == 0 {
		sum.Budget = g.cfg.StoreMemory // for the first peer
	}
	if p := g.images.pool; p != nil {
		st := p.Stats()
		sum.Pages += st.Pages
		sum.Bytes += st.Segments << 20
		sum.Budget += st.Budget
		sum.Disk += st.Bytes
	}
	return sum
}

// VMs lists the VMs of all hosts of this site, by name. Hosts are asked at the
// same time, because one that hangs takes its time.
func (g *Gateway) VMs(ctx context.Context) ([]VMInfo, error) {
	var mu sync.Mutex // guards all
	all := []VMInfo{}
	var wg sync.WaitGroup
	for _, h := range g.cfg.Hosts {
		wg.Go(func() {
			vms, err := h.VMs(ctx)
			if err != nil {
				vms = []VMInfo{{Host: h.Name(), State: Unknown, Problem: err.Error()}}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, vms...)
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b VMInfo) int { return strings.Compare(a.Name+"\x00"+a.Host, b.Name+"\x00"+b.Host) })
	return all, nil
}
