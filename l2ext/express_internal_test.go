package l2ext

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// expressManager is a manager that does not run, with segments in the mode that it shares with b.
func expressManager(t testing.TB, segments int) *Manager {
	m, err := New(Config{Site: "a", Host: sinkHost{}, Carrier: sinkCarrier{}})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[uint32]*segment)
	for i := range segments {
		vni := uint32(i + 1)
		all[vni] = m.keepOrMake(nil, Segment{Name: fmt.Sprint("s", vni), VNI: vni, Mode: SecureFast, Sites: []string{"b"}})
	}
	m.state.Store(&all)
	first := firstExpress(all)
	m.first.Store(&first)
	return m
}

func TestFirstExpress(t *testing.T) {
	all := make(map[uint32]*segment)
	for vni, sites := range map[uint32][]string{1: nil, 2: {"c"}, 3: {"b", "c"}, 4: {"b"}} {
		all[vni] = &segment{Segment: Segment{VNI: vni, Mode: SecureFast, Sites: sites}}
	}
	all[1].Mode = Secure
	first := firstExpress(all)
	if len(first) != 3 || first[""] != all[2] || first["b"] != all[3] || first["c"] != all[2] {
		t.Errorf("first: %v", first)
	}
}

// TestOrigin: whose frames are taken, of which segment, in which mode; and what is counted.
func TestOrigin(t *testing.T) {
	m := expressManager(t, 1)
	all := maps.Clone(m.segments())
	all[2] = m.keepOrMake(nil, Segment{Name: "slow", VNI: 2, Mode: Secure, Sites: []string{"b", "c"}})
	all[2].ways.told(time.Now(), "c", SecureFast, netip.Addr{})
	m.state.Store(&all)
	for _, tt := range []struct {
		site  string
		vni   uint32
		mode  Mode
		want  error
		count Count
	}{
		{"b", 1, SecureFast, nil, 0},
		{"b", 2, Secure, nil, 0},
		{"b", 1, Secure, errMode, DropMode},
		{"b", 2, SecureFast, errMode, DropMode},
		{"c", 2, Secure, errMode, DropMode}, // it has said that it carries it otherwise
		{"c", 1, SecureFast, errStranger, DropNoSegment},
		{"b", 3, Secure, errStranger, 0},
	} {
		before := uint64(0)
		if seg := all[tt.vni]; seg != nil {
			before = seg.counts[tt.count].Load()
		}
		seg, err := m.origin(tt.site, tt.vni, tt.mode)
		if err != tt.want || seg != all[tt.vni] {
			t.Errorf("%+v: %v", tt, err)
		}
		if tt.count != 0 && seg.counts[tt.count].Load() != before+1 {
			t.Errorf("%+v: not counted", tt)
		}
	}
}

// BenchmarkStranger: what a datagram of nobody costs.
func BenchmarkStranger(b *testing.B) {
	for _, segments := range []int{1, 1000} {
		b.Run(fmt.Sprintf("segments=%d", segments), func(b *testing.B) {
			m := expressManager(b, segments)
			d := slices.Concat([]byte{0x1c, 1, 0, 0, 1, 2, 3, 4}, make([]byte, fast.Overhead))
			b.SetBytes(int64(len(d)))
			b.ReportAllocs()
			for b.Loop() {
				m.HandleExpress(d, len(d))
			}
			if got := m.segments()[1].counts[DropForged].Load(); got < uint64(b.N) {
				b.Errorf("%d of %d were counted", got, b.N)
			}
		})
	}
}

// TestLANWaitsBehindParked: between the binding that takes a MAC back and the moment at which
// the frames that waited for it follow, one of the LAN waits with them.
func TestLANWaitsBehindParked(t *testing.T) {
	for _, mode := range []Mode{Secure, SecureFast} {
		m, now := expressManager(t, 0), time.Unix(1000, 0)
		seg := m.keepOrMake(nil, Segment{Name: "prod", VNI: 1, Mode: mode, Sites: []string{"b"}})
		m.state.Store(&map[uint32]*segment{1: seg})
		seg.table.see(now, local, false)
		seg.table.move(now, remote, "a", "j", 1)
		seg.holdFor(now, remote, seg.table.byMAC[remote])
		seg.table.move(now, remote, "b", "j", 2)
		o := outward{m: m, express: newExpressOut(m)}
		x := numbered(remote, 1, 60)
		if mode == SecureFast {
			x.message = append(fast.Plain(nil), x.frame...)
		}
		o.frame(now, seg, x)
		if n := seg.counts[Parked].Load(); n != 1 {
			t.Errorf("mode %s: %d frames wait", mode, n)
		}
	}
}

// noSecret is a link that is down.
type noSecret struct{ *staleExpress }

func (noSecret) Secret(string) (Secret, error) { return Secret{}, os.ErrClosed }

// TestAgreementOutlivesPeer: of a peer that is gone no key is left in the table, and what was
// agreed with it stays; there is nothing of a site that has never been up.
func TestAgreementOutlivesPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := expressManager(t, 1)
		for i, express := range []Express{noSecret{}, &staleExpress{}, &staleExpress{}, noSecret{}} {
			m.cfg.Express = express
			m.setPeers(m.segments())
			m.lookAfterExpress(time.Now())
			keys := len(*m.keys.Load())
			if up := i == 1 || i == 2; (keys == 1) != up {
				t.Errorf("round %d: %d keys", i, keys)
			}
			m.setPeers(nil)
			m.senders.Wait()
			if left := len(*m.keys.Load()); left != 0 {
				t.Errorf("round %d: %d keys are left", i, left)
			}
			a := m.agreed["b"]
			if i == 0 && a != nil || i > 0 && (a == nil || a.epoch != uint64(min(i, 2))) {
				t.Errorf("round %d: agreed %+v", i, a)
			}
		}
	})
}

// takingPort takes what a kernel would, and keeps nothing.
type takingPort struct{}

func (takingPort) Read([]byte) (int, error) { return 0, os.ErrClosed }
func (takingPort) Next([]byte) (int, error) { return 0, nil }
func (takingPort) OnlyTCP() error           { return nil }
func (takingPort) Write(b []byte) error {
	_, _, err := fast.SplitMessage(b)
	return err
}

// FuzzExpressPeer takes records that a peer has sealed: nothing panics, what is held is
// bounded, and what reaches the kernel is a message.
func FuzzExpressPeer(f *testing.F) {
	frame := append(fast.Plain(nil), benchFrame(local, remote, 60)...)
	cut := fast.Record{Kind: fast.Piece, VNI: 1, ID: 7, Total: len(frame), Body: frame[:30]}
	rest := cut
	rest.Offset, rest.Body = 30, frame[30:]
	f.Add(fast.Record{Kind: fast.Whole, VNI: 1, Body: frame}.Append(nil))
	f.Add(rest.Append(cut.Append(nil)))
	f.Add(rest.Append(fast.Record{Kind: fast.Hello, Heard: 1 << 63}.Append(nil)))
	f.Add(fast.Record{Kind: fast.Whole, VNI: 2, Redirected: true, Body: frame}.Append(nil))
	m := expressManager(f, 1)
	seg := m.segments()[1]
	seg.attached.Port = takingPort{}
	seg.table.see(time.Unix(1000, 0), local, false)
	seg.table.move(time.Unix(1000, 0), remote, "b", "", 1)
	p := &peer{site: "b"}
	p.express.hello, p.express.aside, p.express.agreed = make(chan struct{}, 1), newAside(), &agreement{}
	k := &inKey{peer: p}
	now := time.Unix(2000, 0)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := seg.counts[DropCarrier].Load()
		p.rx.Lock()
		m.takeRecordsOf(now, k, b)
		p.rx.Unlock()
		now = now.Add(time.Millisecond)
		if n := seg.counts[DropCarrier].Load(); n != before {
			t.Errorf("%x: %d messages that are none were given to the kernel", b, n-before)
		}
	})
}
