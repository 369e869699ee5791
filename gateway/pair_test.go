package gateway_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/hvtest"
	"github.com/longhaul-project/longhaul/internal/qemu/vmstream"
	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// identities founds a fleet and returns who a and b are.
func identities(t testing.TB) (a, b *pki.Identity) {
	t.Helper()
	dirA, dirB := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	if err := pki.Init(dirA, "test", "a", "gw1"); err != nil {
		t.Fatal(err)
	}
	a, err := pki.Load(dirA)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Provision(dirB, "b", "gw1"); err != nil {
		t.Fatal(err)
	}
	if b, err = pki.Load(dirB); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// site is one end of a test: a host that lives on, and a gateway that may die.
type site struct {
	t     testing.TB
	id    *pki.Identity
	name  string
	addr  string
	dir   string
	run   string
	peers []tunnel.Peer
	host  *hvtest.FakeHost
	l2    *fakeL2

	sockets tunnel.Sockets // nil for real ones
	images  *fakeImages    // nil: nothing can be seeded
	dirs    []string       // that are kept seeded
	disk    int64          // of the store in bytes; 0: 256 MiB

	others []gateway.Host // beside host
	diary  io.Writer      // takes the log; nil for nobody
	late   chan struct{}  // Run waits until it is closed; nil: it does not

	tenants     []string
	hostTenants map[string]string

	g     *gateway.Gateway
	node  *tunnel.Node
	stop  func() // as SIGTERM does
	crash func() // as kill -9 does, without waiting for the end
	kill  func() // as kill -9 does
}

// ports are those that gateways of this process have had, below those that the kernel gives to
// who asks for none (ip_local_port_range): between two runs of a gateway nobody else has its port.
var ports atomic.Uint32

const firstPort, allPorts = 10240, 32768 - 10240

// freeAddr finds a port, of UDP and of TCP, for a gateway that will restart on it.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range allPorts {
		n := (uint32(os.Getpid())*97 + ports.Add(1)) % allPorts
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(firstPort+n)))
		u, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		u.Close()
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr
	}
	t.Fatal("all ports are in use")
	return ""
}

// newPair makes sites a and b, with their link up and one VM, db1, at a.
func newPair(t testing.TB, guest hvtest.Guest) (a, b *site, ledger *hvtest.Ledger) {
	t.Helper()
	return newPairOver(t, guest, nil)
}

// newPairOver is newPair over a simulated WAN, or over real sockets if wan is nil.
func newPairOver(t testing.TB, guest hvtest.Guest, wan *testwan.WAN) (a, b *site, ledger *hvtest.Ledger) {
	t.Helper()
	return newPairWith(t, guest, wan, func(*site) {})
}

// newPairWith is newPairOver with sites that prepare has changed before they start.
func newPairWith(t testing.TB, guest hvtest.Guest, wan *testwan.WAN, prepare func(*site)) (a, b *site, ledger *hvtest.Ledger) {
	t.Helper()
	idA, idB := identities(t)
	ledger = &hvtest.Ledger{}
	mk := func(name string, id *pki.Identity) *site {
		run, err := os.MkdirTemp("", "lh") // short: it holds sockets
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(run) })
		s := &site{t: t, id: id, name: name, addr: freeAddr(t), dir: t.TempDir(), run: run, host: hvtest.NewFakeHost("host-"+name, ledger), l2: &fakeL2{}}
		t.Cleanup(s.host.Close)
		return s
	}
	a, b = mk("a", idA), mk("b", idB)
	if wan != nil {
		a.addr, a.sockets = "192.0.2.1:7447", wan.Site("192.0.2.1")
		b.addr, b.sockets = "192.0.2.2:7447", wan.Site("192.0.2.2")
	}
	a.peers = []tunnel.Peer{{Site: "b", Addrs: []string{b.addr}}}
	b.peers = []tunnel.Peer{{Site: "a", Addrs: []string{a.addr}}}
	guest.Name = "db1"
	a.host.Add(guest)
	prepare(a)
	prepare(b)
	a.start()
	b.start()
	a.waitUp("b")
	b.waitUp("a")
	t.Cleanup(func() { a.stop(); b.stop() })
	return a, b, ledger
}

// start runs a gateway over what an earlier one has left.
func (s *site) start() {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("LONGHAUL_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", s.name)
	}
	if s.diary != nil {
		log = slog.New(slog.NewTextHandler(s.diary, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", s.name)
	}
	node, err := tunnel.New(tunnel.Config{
		Site: s.name, Gateway: "gw1", ServerTLS: s.id.ServerTLS(), ClientTLS: s.id.ClientTLS(), Listen: s.addr, Logger: log, Sockets: s.sockets,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := node.SetPeers(s.peers); err != nil {
		s.t.Fatal(err)
	}
	cfg := gateway.Config{
		Site: s.name, Node: node, Hosts: append([]gateway.Host{s.host}, s.others...), Network: s.l2, Logger: log,
		Formats:  gateway.Formats{Recognise: vmstream.Recognise, Opaque: newOpaque, Pack: vmstream.NewPacker},
		StateDir: filepath.Join(s.dir, "state"), StoreDir: filepath.Join(s.dir, "store"), StoreDisk: cmp.Or(s.disk, 256<<20), RunDir: s.run,
		AllowForward: func(string, string) error { return nil },
		SeedDirs:     s.dirs, Tenants: s.tenants, HostTenants: s.hostTenants,
	}
	if s.images != nil {
		cfg.Images = s.images
	}
	g, err := gateway.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	g.Hurry(300*time.Millisecond, time.Minute, time.Second)
	g.HurryImages(100 * time.Millisecond)
	s.g, s.node = g, node
	nodeCtx, stopNode := context.WithCancel(context.Background())
	runCtx, stopRun := context.WithCancel(context.Background())
	nodeDone, runDone := make(chan error, 1), make(chan error, 1)
	go func() { nodeDone <- node.Run(nodeCtx) }()
	late := s.late
	go func() {
		if late != nil {
			<-late
		}
		runDone <- g.Run(runCtx)
	}()
	ended := false
	s.stop = func() {
		if ended {
			return
		}
		ended = true
		stopRun()
		if err := <-runDone; err != nil {
			s.t.Errorf("gateway %s: %v", s.name, err)
		}
		stopNode()
		<-nodeDone
	}
	s.crash = sync.OnceFunc(func() {
		s.host.DropGateway()
		g.Crash()
	})
	s.kill = func() {
		ended = true
		s.crash()
		stopNode()
		<-nodeDone
		stopRun()
		<-runDone
	}
}

// busyTime bounds what takes a moment, on a machine that has other work: as long as
// a job may take in wait. Handshakes of the link begin anew when one times out.
const busyTime = 3 * time.Minute

func (s *site) waitUp(peer string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), busyTime)
	defer cancel()
	if err := s.node.Link(peer).WaitUp(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// migrate asks for a move of db1 and waits for its end.
func (s *site) migrate(to string) gateway.Job {
	s.t.Helper()
	j, err := s.g.Migrate(s.t.Context(), gateway.MigrateRequest{VM: "db1", To: to})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.wait(j.ID)
}

// watch follows a job to its end, or for busyTime.
func (s *site) watch(id string) <-chan gateway.JobEvent {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), busyTime)
	s.t.Cleanup(cancel)
	events, err := s.g.WatchJob(ctx, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return events
}

// wait waits for the end of a job.
func (s *site) wait(id string) gateway.Job {
	s.t.Helper()
	var last gateway.Job
	for ev := range s.watch(id) {
		last = ev.Job
	}
	if !last.State.Ended() {
		s.t.Fatalf("job %s at %s does not end: %s, %s; %s", id, s.name, last.State, last.Phase, last.Safe)
	}
	return last
}
