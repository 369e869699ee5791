package l2ext

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/announce"
)

// Some of what operators say of a segment has to be the same at all its sites: the MTU, and
// the most of the policy. Nothing breaks at once where it is not, but guests then have another
// gateway, or their packets another limit, after a move. So sites tell each other, and each
// says which others differ. Not among these terms are the limits, streams and host routes:
// they are a site's own affair.

// terms of a segment, with its defaults filled in, by the names that they have in the config.
func (s Segment) terms() map[string]string {
	p := s.Policy
	var mac string
	if p.GatewayMAC != (MAC{}) {
		mac = p.GatewayMAC.String()
	}
	var ips []string
	for _, ip := range p.GatewayIPs {
		ips = append(ips, ip.String())
	}
	slices.Sort(ips)
	return map[string]string{
		"mtu":            strconv.Itoa(s.MTU),
		"home":           p.Home,
		"gateway":        string(p.Gateway),
		"gateway_mac":    mac,
		"gateway_ips":    short(strings.Join(ips, " ")),
		"unknown":        string(p.Unknown),
		"multicast":      string(p.Multicast),
		"router_adverts": string(p.RouterAdverts),
		"dhcp":           string(p.DHCP),
		"fhrp":           string(cmp.Or(p.FHRP, Local)),
	}
}

// maxTerm is the longest value that can be told, in bytes; sixteen addresses of IPv6 are longer.
const maxTerm = 255

func short(value string) string { return value[:min(len(value), maxTerm)] }

// sendTerms tells a site the terms of a segment here.
func (m *Manager) sendTerms(seg *segment, site string) {
	msg := announce.Message{Kind: announce.Terms, VNI: seg.VNI}
	terms := seg.terms()
	for _, name := range slices.Sorted(maps.Keys(terms)) {
		msg.Terms = append(msg.Terms, announce.Term{Name: name, Value: terms[name]})
	}
	m.enqueue(seg, site, msg)
}

// agreeOn notes the terms of a site.
func (w *ways) agreeOn(site string, terms []announce.Term) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bySite[site] != nil {
		w.terms[site] = terms
	}
}

// maxDiffer is how many differences are told together: they are on one line of a table.
const maxDiffer = 3

// disagreement names the sites that have other terms than this one, and which; "" if none has.
func (w *ways) disagreement(now time.Time, own map[string]string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, site := range slices.Sorted(maps.Keys(w.terms)) {
		if w.bySite[site].isSilent(now) {
			continue
		}
		for _, t := range w.terms[site] {
			here, known := own[t.Name]
			if !known || here == t.Value || t.Name == "home" && (here == "" || t.Value == "") { // nobody need say where home is
				continue
			}
			all = append(all, fmt.Sprintf("%s is %s at site %s and %s here", t.Name, cmp.Or(t.Value, "none"), site, cmp.Or(here, "none")))
		}
	}
	if more := len(all) - maxDiffer; more > 0 {
		all = append(all[:maxDiffer], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; ")
}
