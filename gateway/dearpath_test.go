package gateway_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel"
)

// TestDearPathForADeadline: a path that costs more carries a move that would miss its
// deadline without it, and none that has time.
func TestDearPathForADeadline(t *testing.T) {
	t.Parallel()
	wan := newWAN(t)
	// What is left when the VM stops goes over all paths: here it is little.
	guest := func(name string, memory int64) hvtest.Guest {
		return hvtest.Guest{Name: name, Memory: memory, Pace: 2500 * time.Millisecond}
	}
	wan.SetBetween(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), testwan.Line{Delay: 2 * time.Millisecond, Rate: 500_000})
	said := new(diary)
	a, _, ledger := newPairWith(t, guest("db1", 8<<20), wan, func(s *site) {
		if s.name == "b" {
			s.peers = []tunnel.Peer{{Site: "a"}}
			return
		}
		to := s.peers[0].Addrs
		s.peers[0] = tunnel.Peer{Site: "b", Paths: []tunnel.Path{
			{Name: "cheap", Source: "192.0.2.1", Addrs: to}, {Name: "dear", Source: "192.0.2.101", Addrs: to, Cost: 1},
		}}
		s.host.Add(guest("db2", 24<<20))
		s.diary = said
	})
	paths := func() []tunnel.PathState { return a.node.Link("b").State().Paths }
	until(t, "there are connections over both paths", func() bool {
		p := paths()
		return len(p) == 2 && p[0].Conns > 1 && p[1].Conns > 1
	})
	for _, tt := range []struct {
		vm       string
		deadline int64
		late     bool
	}{{"db1", 3600, false}, {"db2", 4, true}} {
		said.clear()
		was := paths()[1].Wire.Sent
		j, err := a.g.Migrate(t.Context(), gateway.MigrateRequest{VM: tt.vm, To: "b", Deadline: tt.deadline})
		if err != nil {
			t.Fatal(err)
		}
		if end := a.wait(j.ID); end.State != gateway.JobDone {
			t.Fatalf("%s: %s: %s", tt.vm, end.State, end.Error)
		}
		ledger.Check(t, tt.vm, "host-b")
		sent := paths()[1].Wire.Sent - was
		t.Logf("%s, with %d s of time: %d bytes over the path that costs more", tt.vm, tt.deadline, sent)
		if late := strings.Contains(said.String(), "may use all paths"); late != tt.late || late && sent < 2_000_000 {
			t.Errorf("%s, with %d s of time: may it use all paths: %v; %d bytes over the one that costs more", tt.vm, tt.deadline, late, sent)
		}
	}
}
