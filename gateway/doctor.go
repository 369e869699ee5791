package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
)

// Checkup is what a gateway finds when it looks at itself, its machine and its
// links.
type Checkup struct {
	OK     bool    `json:"ok" doc:"nothing has failed"`
	Checks []Check `json:"checks" doc:"what was looked at"`
}

// Check is one thing that was looked at.
type Check struct {
	Name    string     `json:"name" doc:"what was looked at" example:"mtu"`
	Subject string     `json:"subject,omitempty" doc:"at which peer, segment or host"`
	State   CheckState `json:"state" doc:"ok, warn or fail" enum:"ok,warn,fail"`
	Detail  string     `json:"detail" doc:"what was found, and what to do"`
}

// CheckState is how a check went.
type CheckState string

// How a check may go.
const (
	CheckOK   CheckState = "ok"
	CheckWarn CheckState = "warn" // works, but an operator ought to look at it
	CheckFail CheckState = "fail" // does not work
)

// Bounds of checks.
const (
	certSoon   = 14 * 24 * time.Hour // they are renewed 30 days before their end (tunnel/pki): it has failed for half of these
	clockWarn  = 2 * time.Second     // calendars and logs of two sites cannot be compared any more
	clockFail  = time.Minute         // certificates and tokens begin to be refused
	echoTime   = 2 * time.Second     // for a frame to come back; more than any WAN's round trip
	echoTries  = 3                   // datagrams may be lost
	echoSmall  = 64                  // bytes of a frame that passes everywhere
	fullHeader = 18                  // of Ethernet, with a VLAN tag
)

// NewCheckup sorts checks, the worst first, and sums them up.
func NewCheckup(checks []Check) Checkup {
	rank := map[CheckState]int{CheckFail: 0, CheckWarn: 1, CheckOK: 2}
	checks = slices.Clone(checks)
	slices.SortStableFunc(checks, func(a, b Check) int { return cmp.Compare(rank[a.State], rank[b.State]) })
	ok := !slices.ContainsFunc(checks, func(c Check) bool { return c.State == CheckFail })
	return Checkup{OK: ok, Checks: checks}
}

// Examine looks at what a gateway says of itself.
func Examine(now time.Time, st Status, segments []Segment) []Check {
	checks := []Check{{Name: "gateway", Subject: st.Site, State: CheckOK, Detail: "longhauld " + st.Version + " listens on " + st.Listen}}
	if left := st.CertEnd.Sub(now); !st.CertEnd.IsZero() {
		c := Check{Name: "certificate", State: CheckOK, Detail: "valid until " + st.CertEnd.Format(time.DateOnly)}
		switch {
		case left <= 0:
			c.State, c.Detail = CheckFail, "has expired: no other gateway talks to this one; let it join anew, with a token from the site that founded the fleet"
		case left < certSoon:
			c.State = CheckWarn
			c.Detail = fmt.Sprintf("ends in %d days and was not renewed: is the link to the site that founded the fleet up?", int(left.Hours()/24))
		}
		checks = append(checks, c)
	}
	for _, p := range st.Peers {
		checks = append(checks, examinePeer(p, st.Version))
		checks = append(checks, examineLine(p)...)
	}
	for _, h := range st.Hosts {
		c := Check{Name: "host", Subject: h.Name, State: CheckOK, Detail: fmt.Sprintf("answers, %d VMs", h.VMs)}
		if h.Problem != "" {
			c.State, c.Detail = CheckFail, h.Problem
		}
		checks = append(checks, c)
	}
	for _, l := range st.Left {
		checks = append(checks, Check{Name: "left by a move", Subject: l.VM + " at " + l.Host, State: CheckWarn, Detail: "job " + l.Job + ": " + l.Problem})
	}
	for _, s := range segments {
		checks = append(checks, examineSegment(s)...)
	}
	return checks
}

func examinePeer(p PeerStatus, version string) Check {
	c := Check{Name: "link", Subject: p.Site, State: CheckOK, Detail: fmt.Sprintf("up, round trip %.1f ms, %d connections", p.RTT, p.Conns)}
	switch {
	case !p.Alive && strings.HasPrefix(p.Why, "certificate"):
		c.State, c.Detail = CheckFail, "is down: "+p.Why+"; a site that was revoked joins anew with a token, and clocks have to agree"
	case !p.Alive:
		c.State, c.Detail = CheckFail, "is down: "+cmp.Or(p.Why, "no reason known")+"; does a firewall let UDP pass to "+cmp.Or(p.Address, "its address")+"?"
	case p.Version != "" && p.Version != version:
		c.State, c.Detail = CheckWarn, "runs longhauld "+p.Version+", this gateway "+version
	}
	return c
}

// examineLine finds what makes a link that is up slower than it could be.
func examineLine(p PeerStatus) (checks []Check) {
	warn := func(name, subject, detail string) {
		checks = append(checks, Check{Name: name, Subject: subject, State: CheckWarn, Detail: detail})
	}
	if p.Fallback != "" {
		warn("carrier", p.Site, "TCP carries it: "+p.Fallback+"; let UDP pass to "+cmp.Or(p.Address, "its address"))
	}
	if p.FarFallback != "" {
		warn("carrier", p.Site, "TCP carries it, for QUIC from there does not get through ("+p.FarFallback+"); let UDP pass to this gateway's port")
	}
	if runs, why, _ := strings.Cut(p.FarController, ": "); why != "" {
		warn("congestion control", p.Site, runs+" runs there and not ours, and what comes from there is slow where the line is long or loses packets: "+why)
	}
	runs, why, _ := strings.Cut(p.Controller, ": ")
	switch {
	case why != "":
		warn("congestion control", p.Site, runs+" runs and not ours, and is slow where the line is long or loses packets: "+why)
	case p.Alive && p.Carrier == "tcp" && !strings.HasSuffix(runs, "bbr"):
		warn("congestion control", p.Site, runs+" is slow where the line is long or loses packets: load the kernel's tcp_bbr")
	}
	for _, x := range p.Paths {
		if x.Why != "" && p.Alive {
			warn("path", p.Site+"/"+x.Name, "is down: "+x.Why)
		}
	}
	return checks
}

func examineSegment(s Segment) (checks []Check) {
	c := Check{Name: "segment", Subject: s.Name, State: CheckOK, Detail: fmt.Sprintf("%d MACs, spans %s", len(s.Bindings), strings.Join(s.Sites, ", "))}
	switch {
	case s.Problem != "":
		c.State, c.Detail = CheckFail, s.Problem
	case s.Device == "":
		c.State, c.Detail = CheckFail, "is not attached to its bridge yet"
	}
	loops := Check{Name: "loops", Subject: s.Name, State: CheckOK, Detail: "no LAN of another site was heard behind the gateways"}
	if n := s.Counts["loop_trips"]; n > 0 {
		loops.State, loops.Detail = CheckWarn, fmt.Sprintf("found %d times since the gateway started", n)
	}
	twins := Check{Name: "duplicate MACs", Subject: s.Name, State: CheckOK, Detail: "no MAC was heard at two sites"}
	if n := s.Counts["conflicts"]; n > 0 {
		twins.State, twins.Detail = CheckWarn, fmt.Sprintf("%d frames came from a MAC that another site owns; a few after a move are no harm", n)
	}
	if macs := frozen(s); len(macs) > 0 {
		twins.State = CheckWarn
		twins.Detail = fmt.Sprintf("two hosts have %s: find and stop one, then: longhaul segment clear %s MAC", strings.Join(macs, ", "), s.Name)
	}
	storms := Check{Name: "storms", Subject: s.Name, State: CheckOK, Detail: "no limit was reached"}
	if n := s.Counts["drop_kernel"] + s.Counts["drop_broadcast"] + s.Counts["drop_multicast"] + s.Counts["drop_resolve"]; n > 0 {
		storms.State, storms.Detail = CheckWarn, fmt.Sprintf("%d frames were over a limit since the gateway started", n)
	}
	return append(checks, c, loops, twins, storms)
}

// maxNamed is how many MACs a check names; "segment show" has all.
const maxNamed = 4

// frozen lists MACs that two sites have claimed in turn, and where they are frozen.
func frozen(s Segment) (macs []string) {
	for _, b := range s.Bindings {
		if len(b.FrozenAt) == 0 {
			continue
		}
		if len(macs) == maxNamed {
			return append(macs, "and others")
		}
		macs = append(macs, fmt.Sprintf("%s (frozen at %s)", b.MAC, strings.Join(b.FrozenAt, ", ")))
	}
	return macs
}

// CheckPaths sends frames to the gateways of all sites with which a segment is
// shared, and looks at their clocks.
func (l *Layer2) CheckPaths(ctx context.Context) []Check {
	var mu sync.Mutex // guards checks
	var checks []Check
	var wg sync.WaitGroup
	for _, v := range l.m.Segments() {
		for _, site := range v.Sites {
			wg.Go(func() {
				c := l.checkMTU(ctx, v.Segment, site)
				mu.Lock()
				defer mu.Unlock()
				checks = append(checks, c)
			})
		}
	}
	wg.Wait()
	slices.SortFunc(checks, func(a, b Check) int { return cmp.Compare(a.Subject, b.Subject) })
	for site, ahead := range l.m.Clocks() {
		c := Check{Name: "clock", Subject: site, State: CheckOK, Detail: "agrees with this one within " + max(ahead.Abs(), time.Millisecond).Round(time.Millisecond).String()}
		if off := ahead.Abs(); off > clockWarn {
			c.State, c.Detail = CheckWarn, fmt.Sprintf("is %v off from this one; do both follow a time server?", ahead.Round(time.Second))
			if off > clockFail {
				c.State = CheckFail
			}
		}
		checks = append(checks, c)
	}
	return checks
}

// checkMTU sends a full frame to a site's gateway and back.
func (l *Layer2) checkMTU(ctx context.Context, s l2ext.Segment, site string) Check {
	segment, mtu := s.Name, s.MTU
	c := Check{Name: "mtu", Subject: segment + " to " + site, State: CheckOK}
	if l.node.Link(site) == nil {
		c.State, c.Detail = CheckFail, "no such site yet: has it joined, and is the name right?"
		return c
	}
	rtt, err := l.echo(ctx, segment, site, mtu)
	if err == nil {
		parts := ""
		if link := l.node.Link(site); link != nil && s.Mode != l2ext.Direct && link.MaxDatagram() > 0 && link.MaxDatagram() < mtu+fullHeader {
			parts = ", in parts of at most " + fmt.Sprint(link.MaxDatagram()) + " bytes"
		}
		c.Detail = fmt.Sprintf("%d bytes pass there and back in %v%s", mtu, rtt.Round(100*time.Microsecond), parts)
		return c
	}
	c.State = CheckFail
	if _, small := l.echo(ctx, segment, site, echoSmall); small != nil {
		c.Detail = "no frame comes back: is the link up, and has the site this segment?"
		if !errors.Is(small, context.DeadlineExceeded) {
			c.Detail += " " + small.Error()
		}
		return c
	}
	c.Detail = fmt.Sprintf("small frames come back, those of %d bytes do not", mtu)
	return c
}

func (l *Layer2) echo(ctx context.Context, segment, site string, size int) (rtt time.Duration, err error) {
	for range echoTries {
		try, cancel := context.WithTimeout(ctx, echoTime)
		rtt, err = l.m.Echo(try, segment, site, size)
		cancel()
		if err == nil || ctx.Err() != nil {
			return rtt, err
		}
	}
	return 0, err
}
