package hostnet

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/longhaul-project/longhaul/internal/nstest"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// another is prodDirect on a bridge of its own, with a VNI of its own and hosts at
// the other site.
func another(vni uint32, bridge string, hosts int) l2ext.Wish {
	w := prodDirect(bridge)
	w.Name, w.VNI, w.Entries = fmt.Sprint("net", vni), vni, nil
	for i := range hosts {
		w.Entries = append(w.Entries, l2ext.Entry{MAC: l2ext.MAC{0x52, 0x54, 1, byte(i >> 16), byte(i >> 8), byte(i)}, Site: 16})
	}
	return w
}

// TestOwnersOfSegments: a MAC that is another site's on one segment may be this
// site's on the other.
func TestOwnersOfSegments(t *testing.T) {
	ns := machine(t)
	n, port := newLAN(t, ns)
	check(t, ns.Bridge("br1"))
	other, err := ns.Tap("lan1")
	check(t, err, ns.Plug("lan1", "br1"))
	t.Cleanup(func() { other.Close() })
	here, there := prodDirect("br0"), another(200, "br1", 1)
	away := here.Entries[0].MAC
	apply(t, n, here, there)
	shout := append(append([]byte("\xff\xff\xff\xff\xff\xff"), away[:]...), append([]byte("\x88\xb6"), make([]byte, 46)...)...)
	count := func(vni uint32) (sent, foreign uint64) {
		traffic, ok := n.Traffic(vni)
		if !ok {
			t.Fatalf("no segment with VNI %d", vni)
		}
		return traffic.Sent, traffic.Foreign
	}
	for _, p := range []interface{ Write([]byte) (int, error) }{port, other} {
		_, err := p.Write(shout)
		check(t, err)
	}
	for end := time.Now().Add(l2exttest.Patience); ; {
		_, twins := count(100)
		crossed, twins200 := count(200)
		if twins == 1 && crossed >= 1 && twins200 == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("on its segment %d frames were dropped; on the other %d were, and %d passed", twins, twins200, crossed)
		}
	}
	if crossed, _ := count(100); crossed != 0 {
		t.Errorf("%d frames of a MAC of another site crossed", crossed)
	}
	if macs := n.twinsOf(100); len(macs) != 1 || macs[0] != away {
		t.Errorf("the twins are %v", macs)
	}
	if macs := n.twinsOf(200); len(macs) != 0 {
		t.Errorf("the other segment's twins are %v", macs)
	}
}

// TestManySegments makes more segments in one go than the kernel's answers find room for
// in a socket as it is, one of them with many hosts at the other site, and moves these.
func TestManySegments(t *testing.T) {
	const direct, secure, hosts = 3, 12, 10_000
	n := newNet(t, machine(t))
	wishes := []l2ext.Wish{another(1, "br1", hosts)}
	for i := range uint32(direct + secure - 1) {
		w := another(2+i, fmt.Sprint("br", 2+i), 1)
		if i >= direct-1 {
			w.Mode, w.Direct = l2ext.Secure, nil
		}
		wishes = append(wishes, w)
	}
	apply(t, n, wishes...)
	check(t, n.storm.err)
	all := n.guard.away[1]
	if len(all) != hosts || n.guard.key == "" {
		t.Errorf("%d hosts of %d are guarded", len(all), hosts)
	}
	come := make([]l2ext.Entry, 0, hosts)
	for mac := range all {
		come = append(come, l2ext.Entry{MAC: mac})
	}
	check(t, n.Point(1, come))
	if len(n.guard.away[1]) != 0 || n.guard.key == "" {
		t.Errorf("%d hosts are guarded that have come", len(n.guard.away[1]))
	}
}

// BenchmarkBridged: what a frame costs that a bridge takes from one LAN port to
// another, and from a LAN port to another site, by how many MACs other sites own and
// how many segments in mode direct there are.
func BenchmarkBridged(b *testing.B) {
	for _, size := range []struct{ macs, segments int }{{1, 1}, {100, 1}, {1000, 1}, {1, 10}, {1, 100}} {
		b.Run(fmt.Sprintf("macs=%d/segments=%d", size.macs, size.segments), func(b *testing.B) {
			ns, far := nstest.New(b), nstest.New(b)
			check(b, nstest.Veth(ns, "wan0", far, "wan0"), ns.Addr("wan0", local+"/24"), ns.Neighbour("wan0", "10.78.0.2", "02:00:00:00:00:02"))
			n, port := newLAN(b, ns)
			lan, err := ns.Tap("lan1") // nobody reads it: what comes is dropped there
			check(b, err, ns.Plug("lan1", "br0"))
			defer lan.Close()
			wishes := []l2ext.Wish{another(100, "br0", size.macs)}
			for i := range size.segments - 1 {
				wishes = append(wishes, another(uint32(200+i), fmt.Sprint("br", 200+i), 1))
			}
			slices.Reverse(wishes) // the one that is measured is the last
			apply(b, n, wishes...)
			host, neighbour := l2ext.MAC{2, 0, 0, 0, 0, 7}, l2ext.MAC{0x52, 0x54, 0, 0, 0, 7}
			_, err = lan.Write(frame(string(host[:]), "\x88\xb6", 46)) // the bridge learns its source
			check(b, err)
			away := wishes[len(wishes)-1].Entries[size.macs-1].MAC
			for _, way := range []struct {
				name string
				dst  l2ext.MAC
			}{{"lan", neighbour}, {"site", away}} {
				sent := append(append(way.dst[:], host[:]...), append([]byte("\x88\xb6"), make([]byte, 46)...)...)
				b.Run("to="+way.name, func(b *testing.B) {
					b.SetBytes(int64(len(sent)))
					runtime.LockOSThread() // the kernel takes the frame all the way in the call
					defer runtime.UnlockOSThread()
					var before, after unix.Rusage
					check(b, unix.Getrusage(unix.RUSAGE_THREAD, &before))
					for b.Loop() {
						if _, err := port.Write(sent); err != nil {
							b.Fatal(err)
						}
					}
					check(b, unix.Getrusage(unix.RUSAGE_THREAD, &after))
					cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
					b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/frame") // what others do with the machine counts less
				})
			}
		})
	}
}
