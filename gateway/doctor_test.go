package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A disk so full that nothing more is kept is told, from the first segment on that is not.
func TestExamineRoom(t *testing.T) {
	const keep = 256 << 20
	for free, want := range map[int64]string{
		keep + aSegment:     "ok its disk has 257 MiB left",
		keep + aSegment - 1: "warn its disk has 256 MiB left, and 256 MiB of it stay free for others: nothing more is kept",
		0:                   "warn its disk has 0 MiB left",
	} {
		c := examineRoom("/store", free, keep)
		if got := fmt.Sprint(c.State, " ", c.Detail); !strings.HasPrefix(got, want) || c.Subject != "/store" {
			t.Errorf("%d bytes free: got %s of %s, want %s", free, got, c.Subject, want)
		}
	}
}

func TestExamine(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	good := Status{
		Site: "a", Version: "1", Listen: ":7447", CertEnd: now.AddDate(1, 0, 0),
		Peers: []PeerStatus{{Site: "b", Alive: true, Version: "1", RTT: 40, Conns: 5}},
		Hosts: []HostStatus{{Name: "h1", VMs: 3}},
	}
	seg := Segment{Name: "prod", Device: "lhvx100", Sites: []string{"b"}, Counts: map[string]int64{}}
	if c := NewCheckup(Examine(now, good, []Segment{seg})); !c.OK || len(c.Checks) != 8 || c.Checks[0].State != CheckOK {
		t.Errorf("all is well, and found is %+v", c)
	}
	for _, tt := range []struct {
		name   string
		change func(*Status, *Segment)
		want   string // of the worst
	}{
		{"expired", func(st *Status, _ *Segment) { st.CertEnd = now }, "fail certificate  has expired"},
		{"expires", func(st *Status, _ *Segment) { st.CertEnd = now.AddDate(0, 0, 3) }, "warn certificate  ends in 3 days and was not renewed: is the link to the site that founded the fleet up?"},
		{"down", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Why: "timeout", Address: "b:7447"}}
		}, "fail link b is down: timeout; does a firewall let UDP pass to b:7447?"},
		{"revoked", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Why: "certificate: refused by the peer: tls: bad certificate", Address: "b:7447"}}
		}, "fail link b is down: certificate: refused by the peer: tls: bad certificate; a site that was revoked joins anew with a token"},
		{"version", func(st *Status, _ *Segment) { st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "2"}} }, "warn link b runs longhauld 2"},
		{"TCP", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "1", Address: "b:7447", Carrier: "tcp", Controller: "kernel bbr", Fallback: "QUIC does not get through (timeout)"}}
		}, "warn carrier b TCP carries it: QUIC does not get through (timeout); let UDP pass to b:7447"},
		{"cubic", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "1", Carrier: "tcp", Controller: "kernel cubic"}}
		}, "warn congestion control b kernel cubic is slow where the line is long or loses packets: load the kernel's tcp_bbr"},
		{"NewReno", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "1", Carrier: "quic", Controller: "newreno x16: quic-go has changed"}}
		}, "warn congestion control b newreno x16 runs and not ours, and is slow where the line is long or loses packets: quic-go has changed"},
		{"TCP, seen from the other end", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "1", Address: "b:53211", Carrier: "tcp", Controller: "kernel bbr", FarFallback: "timeout"}}
		}, "warn carrier b TCP carries it, for QUIC from there does not get through (timeout); let UDP pass to this gateway's port"},
		{"NewReno at the other end", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "1", Carrier: "quic", Controller: "path model, automatic", FarController: "newreno x16: quic-go has changed"}}
		}, "warn congestion control b newreno x16 runs there and not ours, and what comes from there is slow where the line is long or loses packets: quic-go has changed"},
		{"path", func(st *Status, _ *Segment) {
			st.Peers = []PeerStatus{{Site: "b", Alive: true, Version: "1", Paths: []Path{{Name: "mpls", Alive: true}, {Name: "dsl", Why: "timeout"}}}}
		}, "warn path b/dsl is down: timeout"},
		{"host", func(st *Status, _ *Segment) { st.Hosts = []HostStatus{{Name: "h1", Problem: "no socket"}} }, "fail host h1 no socket"},
		{"left", func(st *Status, _ *Segment) {
			st.Left = []Leftover{{Job: "m-1", VM: "db1", Host: "h1", Problem: "it hangs"}}
		}, "warn left by a move db1 at h1 job m-1: it hangs"},
		{"problem", func(_ *Status, s *Segment) { s.Problem = "firewall" }, "fail segment prod firewall"},
		{"no device", func(_ *Status, s *Segment) { s.Device = "" }, "fail segment prod is not attached"},
		{"loop", func(_ *Status, s *Segment) { s.Counts = map[string]int64{"loop_trips": 2} }, "warn loops prod found 2 times"},
		{"twin", func(_ *Status, s *Segment) { s.Counts = map[string]int64{"conflicts": 9} }, "warn duplicate MACs prod 9 frames"},
		{"frozen", func(_ *Status, s *Segment) {
			s.Bindings = []Binding{{MAC: "02:00:00:00:00:01", State: "confirmed"}}
			for i := range 6 {
				s.Bindings = append(s.Bindings, Binding{MAC: fmt.Sprintf("02:00:00:00:00:%02d", 10+i), State: "frozen", FrozenAt: []string{"b"}})
			}
		}, "warn duplicate MACs prod two hosts have 02:00:00:00:00:10 (frozen at b), 02:00:00:00:00:11 (frozen at b), 02:00:00:00:00:12 (frozen at b), 02:00:00:00:00:13 (frozen at b), and others: find and stop one, then: longhaul segment clear prod MAC"},
		{"storm", func(_ *Status, s *Segment) { s.Counts = map[string]int64{"drop_kernel": 9} }, "warn storms prod 9 frames"},
	} {
		st, s := good, seg
		tt.change(&st, &s)
		c := NewCheckup(Examine(now, st, []Segment{s}))
		worst := c.Checks[0]
		got := fmt.Sprintf("%s %s %s %s", worst.State, worst.Name, worst.Subject, worst.Detail)
		if !strings.HasPrefix(got, tt.want) || c.OK != (worst.State != CheckFail) {
			t.Errorf("%s: got %s, %t", tt.name, got, c.OK)
		}
	}
}
