package hostnet

import (
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// TestCaptureEnds: a capture outlives its device being down, and neither its segment's
// removal, of which the kernel tells nothing then, nor a new device in its place.
func TestCaptureEnds(t *testing.T) {
	for name, change := range map[string]func(*Net, uint32){
		"removed": func(n *Net, vni uint32) { delete(n.segments, vni) },
		"replaced": func(n *Net, vni uint32) {
			a := n.segments[vni]
			a.direct++
			n.segments[vni] = a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := machine(t)
			tap, err := ns.Tap("lan0")
			check(t, err, ns.Bridge("br0", "lan0"))
			defer tap.Close()
			n := newNet(t, ns)
			a, err := n.Apply(t.Context(), []l2ext.Wish{prodDirect("br0")})
			check(t, err, a[0].Err)
			captured, ended := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				_, err := n.Capture(t.Context(), 100, l2ext.CaptureOptions{Snap: 100}, func(l2ext.Captured) error {
					select {
					case captured <- struct{}{}:
					default:
					}
					return nil
				})
				ended <- err
			}()
			for begun, deadline := false, time.After(l2exttest.Patience); !begun; {
				_, err := tap.Write(frame("\xff\xff\xff\xff\xff\xff", "\x88\xb6", 46))
				check(t, err)
				select {
				case <-captured:
					begun = true
				case err := <-ended:
					t.Fatalf("ended with %v", err)
				case <-deadline:
					t.Fatal("nothing was captured")
				case <-time.After(10 * time.Millisecond):
				}
			}
			check(t, ns.Down(directName(100)))
			n.mu.Lock()
			change(n, 100)
			n.mu.Unlock()
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), "gone") {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(l2exttest.Patience):
				t.Error("the capture goes on")
			}
		})
	}
}

// FuzzCaptured: whatever stands beside a frame, no more of it is kept than was asked for, and it is as long as it was.
func FuzzCaptured(f *testing.F) {
	f.Add([]byte("frame of a LAN"), []byte{}, 20)
	f.Add([]byte("frame of a VLAN"), []byte{36, 0, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 8, 0, 0, 0, 0x51, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0, 0, 0, 14, 0, 100, 0xe0, 0, 0x81}, 100)
	f.Fuzz(func(t *testing.T, frame, told []byte, snap int) {
		snap = max(snap, 0) // who asks is refused otherwise
		c := capturedOf(frame, told, snap, false)
		if len(c.Frame) > snap || len(c.Frame) > len(frame)+maxTag || c.Len < len(frame) {
			t.Errorf("of % x beside % x, of which %d bytes were asked for: %+v", frame, told, snap, c)
		}
	})
}
