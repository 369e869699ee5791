package l2ext_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/frag"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	loopprobe "github.com/longhaul-project/longhaul/l2ext/probe"
)

// TestHostilePeer sends what a peer has no right to.
func TestHostilePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		m := w.ms["a"]
		good := announce.Record{MAC: vmMAC, Cause: announce.Learned, Seq: 1, Site: "b"}
		say := func(from string, msg announce.Message) error {
			b, err := msg.Append(nil)
			check(t, err)
			return m.HandleUrgent(from, b)
		}
		foreign, huge, other := good, good, good
		foreign.Site, huge.Seq, other.MAC = "z", 1<<63, l2ext.MAC{2, 0, 0, 0, 0, 5}
		for name, err := range map[string]error{
			"a stranger":        say("z", announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{good}}),
			"another segment":   say("b", announce.Message{Kind: announce.Update, VNI: 101, Records: []announce.Record{good}}),
			"for a stranger":    say("b", announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{foreign, other}}),
			"the last number":   say("b", announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{huge}}),
			"a job to nowhere":  say("b", announce.Message{Kind: announce.Prepare, VNI: 100, Job: "j", Site: "z"}),
			"garbage":           m.HandleUrgent("b", []byte("garbage!")),
			"a frame, unknown":  m.HandleDatagram("z", append(frag.Header{VNI: 100, Parts: 1}.Append(nil), frameTo(vmMAC, vmMAC, 60)...)),
			"a frame, segment":  m.HandleDatagram("b", append(frag.Header{VNI: 101, Parts: 1}.Append(nil), frameTo(vmMAC, vmMAC, 60)...)),
			"a garbled frame":   m.HandleDatagram("b", []byte("x")),
			"a part of nothing": m.HandleDatagram("b", frag.Header{VNI: 100, Parts: 2}.Append(nil)),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		w.settle()
		w.want(vmMAC, "a: nowhere; b: nowhere")
		w.want(other.MAC, "a: b 1 confirmed; b: b 1 confirmed") // what is said beside of its own holds
		before := w.count("a", l2ext.DropMalformed)
		for _, frame := range [][]byte{
			frameTo(l2ext.MAC{1, 0x80, 0xc2, 0, 0, 0}, vmMAC, 60), // BPDU
			frameTo(vmMAC, l2ext.MAC{1}, 60),                      // from a group
			{1, 2, 3},
		} {
			w.ms["b"].Forge(100, "a", frame, false)
		}
		for range 5000 {
			w.ms["b"].Forge(100, "a", frameTo(ether.Broadcast, vmMAC, 60), false)
			synctest.Wait()
		}
		v := m.Segments()[0]
		if n := v.Counts[l2ext.Refused]; n != 6 {
			t.Errorf("%d announcements are counted as refused", n)
		}
		if v.Counts[l2ext.Received] > 100 || v.Counts[l2ext.DropBroadcast] < 4900 || v.Counts[l2ext.DropForbidden] != 1 || w.count("a", l2ext.DropMalformed)-before != 2 {
			t.Errorf("counts: %v", v.Counts)
		}
		if _, _, dropped := v.Frames(); dropped < 4900 {
			t.Errorf("%d dropped", dropped)
		}
	})
}

// TestJobsOfPeers: a peer that tells of jobs without end, and of NICs, keeps neither this gateway's own moves nor those
// of another peer from being followed.
func TestJobsOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b", "c")
		a, other := w.ms["a"], hostOf("c")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.appear("c", "lan", other, "10.0.0.8")
		for i := range 6000 {
			msg := announce.Message{Kind: announce.Prepare, VNI: 100, Job: fmt.Sprint("storm", i), Site: "a"}
			for k := range 40 {
				msg.MACs = append(msg.MACs, announce.MAC{2, byte(i >> 8), byte(i), 7, 7, byte(k)})
			}
			b, err := msg.Append(nil)
			check(t, err, a.HandleUrgent("b", b))
		}
		synctest.Wait()
		if n := a.Jobs(t.Context()); n > 4096 || w.count("a", l2ext.Refused) < 6000-4096 {
			t.Errorf("%d jobs are known, %d were refused", n, w.count("a", l2ext.Refused))
		}
		check(t, a.Prepare(t.Context(), "own", []l2ext.NIC{{MAC: vmMAC}}, "b"), a.Expect(t.Context(), "mine", nil))
		check(t, w.ms["c"].Prepare(t.Context(), "theirs", []l2ext.NIC{{MAC: other}}, "a"))
		w.settle()
		if got, _ := binding(a, vmMAC); got.State != l2ext.Pending {
			t.Errorf("own VM: %+v", got)
		}
		if got, _ := binding(a, other); got.Job != "theirs" {
			t.Errorf("VM of another peer: %+v", got)
		}
	})
}

// TestJobOfAnothersHost: a peer that tells of a job which moves the host of another site marks it nowhere, and takes
// no mark from it: neither does it keep a segment stretched, nor the frames for the host from going on.
func TestJobOfAnothersHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b", "c")
		moving := hostOf("a")
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.appear("a", "lan", moving, "10.0.0.8")
		check(t, w.ms["a"].Prepare(t.Context(), "own", []l2ext.NIC{{MAC: moving}}, "c"))
		w.settle()
		for to, at := range map[string][]string{"a": {"a", "c"}, "b": {"a", "c"}, "c": {"a", "c"}} {
			b, err := announce.Message{Kind: announce.Prepare, VNI: 100, Job: "j to " + to, Site: to, MACs: []announce.MAC{announce.MAC(vmMAC), announce.MAC(moving)}}.Append(nil)
			check(t, err)
			for _, site := range at {
				check(t, w.ms[site].HandleUrgent("b", b))
			}
		}
		w.settle()
		w.want(vmMAC, "a: a 2 confirmed; b: a 2 confirmed; c: a 2 confirmed")
		w.want(moving, "a: a 2 pending own; b: a 2 pending own; c: a 2 pending own")
	})
}

// TestJobEndedByAnother: a third site that knows the name of a job cannot end it at its destination, neither with the
// record of a host that the job does not move, nor with one that binds its host to itself.
func TestJobEndedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := switching(t, l2exttest.Line{}, "a", "b", "c")
		check(t, w.ms["a"].Flip(t.Context(), "j"))
		w.settle()
		for _, r := range []announce.Record{
			{MAC: announce.MAC(hostOf("c")), Site: "a"}, {MAC: announce.MAC(hostOf("c")), Site: "c"}, {MAC: announce.MAC(vmMAC), Site: "c"},
		} {
			r.Cause, r.Seq, r.Job = announce.Moved, 9, "j"
			b, err := announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{r}}.Append(nil)
			check(t, err, w.ms["b"].HandleUrgent("c", b))
		}
		w.settle()
		if s := w.hosts["b"].String(); !strings.Contains(s, "muted") {
			t.Errorf("host b is\n%s", s)
		}
		check(t, w.ms["b"].Settle(t.Context(), "j", nics), w.ms["b"].Confirm(t.Context(), "j"), w.ms["a"].Confirm(t.Context(), "j"))
		w.settle()
		if got := w.where(vmMAC); strings.Count(got, ": b ") != 3 {
			t.Errorf("the VM is at %s", got)
		}
	})
}

// TestSnapshotsAsked: a peer that asks for all bindings with each message gets them a few
// times in a second, and the last time after it has asked.
func TestSnapshotsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAlone(t)
		say := func(msg announce.Message) {
			b, err := msg.Append(nil)
			check(t, err, a.m.HandleUrgent("b", b))
		}
		const bound, asked, seconds = 200, 500, 3
		for i := range bound {
			say(announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: l2ext.MAC{2, 9, 0, 0, 0, byte(i)}, Cause: announce.Learned, Seq: 1, Site: "b"}}})
		}
		for name, msg := range map[string]announce.Message{
			"requests": {Kind: announce.Request, VNI: 100}, "digests": {Kind: announce.Digest, VNI: 100},
		} {
			time.Sleep(10*time.Second + 300*time.Millisecond) // between two ticks
			a.bindings()
			for range seconds * asked {
				say(msg)
				time.Sleep(time.Second / asked)
			}
			synctest.Wait()
			if n := a.bindings(); n < seconds*bound || n > 3*(seconds+1)*bound {
				t.Errorf("%s: %d bindings were told in %d s, of %d", name, n, seconds, bound)
			}
			check(t, a.m.Apply(t.Context(), []l2ext.Segment{segment("a", []string{"a", "b"})})) // what is owed stays so
			time.Sleep(2 * time.Second)
			if a.bindings() == 0 {
				t.Errorf("%s: the last ones got no answer", name)
			}
		}
	})
}

// TestGatewaysAreNotBound: neither a host, nor a peer, nor a job of a peer can bind
// the addresses that gateways themselves have; in mode direct the kernel would
// send the echoes of the gateways there.
func TestGatewaysAreNotBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, l2exttest.Line{}, "a", "b")
		own, source := l2ext.MAC(loopprobe.GatewayOf(100, "a")), l2ext.MAC(loopprobe.SourceOf([3]byte{1, 2, 3}))
		say := func(msg announce.Message) {
			b, err := msg.Append(nil)
			check(t, err, w.ms["a"].HandleUrgent("b", b))
			w.settle()
		}
		for _, mac := range []l2ext.MAC{own, source} {
			w.appear("a", "lan", mac, "10.0.0.9")
			say(announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: mac, Cause: announce.Learned, Seq: 9, Site: "b"}}})
			say(announce.Message{Kind: announce.Prepare, VNI: 100, Job: "j", Site: "a", MACs: []announce.MAC{announce.MAC(mac)}})
			check(t, w.ms["a"].Settle(t.Context(), "j", []l2ext.NIC{{MAC: mac, Tap: "lan"}}))
			w.settle()
			w.want(mac, "a: nowhere; b: nowhere")
			if s := w.hosts["a"].String(); strings.Contains(s, mac.String()) {
				t.Errorf("host a is\n%s", s)
			}
		}
	})
}

// FuzzPeer gives a running manager what a peer may send: messages and datagrams,
// each with a byte before it that tells which, and one for its length.
func FuzzPeer(f *testing.F) {
	var seed []byte
	add := func(kind byte, b []byte) { seed = append(append(seed, kind, byte(len(b))), b...) }
	for _, msg := range []announce.Message{
		{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: vmMAC, Cause: announce.Learned, Seq: 5, Site: "b", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}}}},
		{Kind: announce.Prepare, VNI: 100, Job: "j", Site: "a", MACs: []announce.MAC{vmMAC}},
		{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: vmMAC, Cause: announce.Moved, Seq: 6, Site: "a", Job: "j"}}},
		{Kind: announce.Digest, VNI: 100}, {Kind: announce.Request, VNI: 100},
		{Kind: announce.Clear, VNI: 100, MACs: []announce.MAC{vmMAC}}, {Kind: announce.Frozen, VNI: 100, MACs: []announce.MAC{vmMAC}}, {Kind: announce.Arrived, VNI: 100, Job: "j", After: 1, Held: 1},
		{Kind: announce.Key, VNI: 100, Time: 1}, {Kind: announce.Loop, VNI: 100, Site: "b"}, {Kind: announce.Cable, VNI: 100, Site: "b", Nonce: 1}, {Kind: announce.Over, VNI: 100, Job: "j"},
		{Kind: announce.Terms, VNI: 100, Terms: []announce.Term{{Name: "mtu", Value: "1400"}}}, {Kind: announce.Able, VNI: 100, Abilities: 3},
		{Kind: announce.Trip, VNI: 100, Site: "a", RTT: time.Second}, {Kind: announce.Express, VNI: 100, Root: 1, Epoch: 1, Index: 1},
		{Kind: announce.Way, VNI: 101, Mode: "direct", Addr: netip.MustParseAddr("10.9.0.98")},
		{Kind: announce.Members, VNI: 101, IGMP: true, Groups: []announce.MAC{{1, 0, 0x5e, 1, 2, 3}}},
		{Kind: announce.Update, VNI: 101, Records: []announce.Record{{MAC: vmMAC, Cause: announce.Learned, Seq: 5, Site: "b"}}},
	} {
		b, err := msg.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		add(1, b)
	}
	add(0, append(frag.Header{VNI: 100, Parts: 1}.Append(nil), ether.AppendAnnounce(nil, vmMAC, netip.MustParseAddr("fe80::9"))...))
	f.Add(seed)
	w := l2exttest.NewWire(l2exttest.Line{})
	h := l2exttest.NewHost()
	m, err := l2ext.New(l2ext.Config{Site: "a", Host: h, Carrier: w.End("a"), Underlay: netip.MustParseAddr("10.9.0.97")})
	check(f, err)
	w.Join(map[string]*l2ext.Manager{"a": m})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx) })
	f.Cleanup(func() { cancel(); wg.Wait() })
	direct := l2ext.Segment{Name: "direct", VNI: 101, Bridge: "brdirect", Sites: []string{"b"}, Mode: l2ext.Direct}
	check(f, m.Apply(ctx, []l2ext.Segment{segment("a", []string{"a", "b"}), direct}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 2 {
			kind, n := b[0], min(int(b[1]), len(b)-2)
			if kind == 0 {
				m.HandleDatagram("b", bytes.Clone(b[2:2+n]))
			} else {
				m.HandleUrgent("b", b[2:2+n])
			}
			b = b[2+n:]
		}
		for _, s := range m.Segments() {
			for _, bind := range s.Bindings {
				if bind.Site != "a" && bind.Site != "b" || !bind.MAC.Host() {
					t.Errorf("binding %+v", bind)
				}
			}
		}
	})
}
