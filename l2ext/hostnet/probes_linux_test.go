package hostnet

import (
	"bytes"
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/probe"
)

// aProbe is one of a gateway elsewhere.
func aProbe(nonce uint64) []byte {
	return probe.Probe{Src: probe.SourceOf([3]byte{1, 2, 3}), VNI: 100, Nonce: nonce, Site: "b"}.Append(nil, probe.Key{})
}

// storms are frames of which a loop makes many.
var storms = map[string][]byte{
	"ARP":       frame("\xff\xff\xff\xff\xff\xff", "\x08\x06", 46),
	"broadcast": frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46),
	"multicast": frame("\x01\x00\x5e\x01\x01\x01", "\x88\xb6", 46),
}

// TestProbesBesideStorm: a loop probe comes to the gateway by a port by which a storm comes,
// and takes nothing of the limits of others; probes have one of their own, for each port.
func TestProbesBesideStorm(t *testing.T) {
	ns := machine(t)
	n, port := newLAN(t, ns)
	other, err := ns.Tap("lan1")
	check(t, err, ns.Plug("lan1", "br0"))
	defer other.Close()
	w := prod("br0")
	w.Policy.Limits = l2ext.Limits{Resolve: 2, Broadcast: 2, Multicast: 2, Unknown: 1}
	apply(t, n, w)
	passed := func(by *os.File, frame []byte, k int) uint64 {
		before := sent(t, n)
		for range k {
			_, err := by.Write(frame)
			check(t, err)
		}
		return sent(t, n) - before
	}
	for name, storm := range storms {
		passed(port, storm, 2000)
		if passed(port, aProbe(1), 1) != 1 {
			t.Errorf("a probe is lost in a storm of %s", name)
		}
	}
	const many = 2000
	start := time.Now()
	k, took := passed(port, aProbe(2), many), time.Since(start).Seconds()
	if k < probesOfPort-uint64(len(storms)) || float64(k) > probesOfPort*(1+took)+2 {
		t.Errorf("%d of %d probes of one port passed in %.2f s, want about %d", k, many, took, probesOfPort)
	}
	if passed(other, aProbe(3), 1) != 1 {
		t.Error("probes that come by one port keep away those of another")
	}
	before := n.drops()[100][overLimit]
	passed(port, aProbe(4), many)
	if n.drops()[100][overLimit] == before {
		t.Error("probes over their limit are not counted")
	}
}

// TestProbesBesideARP: in mode direct the gateway hears a probe while more is said on the
// LAN than it listens to.
func TestProbesBesideARP(t *testing.T) {
	n, port := newLAN(t, machine(t))
	apply(t, n, prodDirect("br0"))
	heard := make(chan struct{})
	found := sync.OnceFunc(func() { close(heard) })
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = n.Watch(ctx, func(s l2ext.Sighting) {
			if s.Probe != nil {
				found()
			}
		})
	})
	defer watching.Wait()
	defer cancel()
	sent := uint64(0)
	for until := time.Now().Add(l2exttest.Patience); ; sent++ {
		for range 2 * snoopBurst {
			_, err := port.Write(storms["ARP"])
			check(t, err)
		}
		_, err := port.Write(aProbe(sent))
		check(t, err)
		select {
		case <-heard:
			t.Logf("heard one of %d", sent+1)
			return
		default:
		}
		if time.Now().After(until) {
			t.Fatalf("none of %d probes was heard", sent)
		}
	}
}

// TestHearProbesOnly: the snooper's socket can be told to hear probes only, and to hear all
// again, in the VLANs of which it has been told meanwhile.
func TestHearProbesOnly(t *testing.T) {
	n, port := newLAN(t, machine(t))
	f, err := n.openSnoop()
	check(t, err)
	defer f.Close()
	n.snooping.use(f)
	raw, err := f.SyscallConn()
	check(t, err)
	s := snooper{n: n, f: f, raw: raw, frameRoom: make([]byte, 1<<16), told: make([]byte, auxRoom)}
	lan, err := n.nl.LinkByName("lan0")
	check(t, err)
	arp, mark := storms["ARP"], aProbe(7)
	inVLAN := append(append(bytes.Clone(arp[:12]), 0x81, 0, 0, 100), arp[12:]...)
	hears := func(frames ...[]byte) (kinds string) {
		for _, f := range append(frames, mark) {
			_, err := port.Write(f)
			check(t, err)
		}
		check(t, f.SetReadDeadline(time.Now().Add(l2exttest.Patience)))
		for {
			frame, by, err := s.receive()
			check(t, err)
			switch {
			case by.device != lan.Attrs().Index: // the bridge itself hears all once more
			case bytes.Equal(frame, mark):
				return kinds
			case by.vid != 0:
				kinds += "V"
			default:
				kinds += "A"
			}
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"at first", func() error { return nil }, "A"},
		{"probes only", n.snooping.hearProbesOnly, ""},
		{"a VLAN meanwhile", func() error { return n.snooping.hear(func() { n.snooping.vids = []uint16{100} }) }, ""},
		{"all again", n.snooping.hearAll, "AV"},
	} {
		check(t, step.do())
		if got := hears(arp, inVLAN); got != step.want {
			t.Errorf("%s: heard %q, want %q", step.name, got, step.want)
		}
	}
}
