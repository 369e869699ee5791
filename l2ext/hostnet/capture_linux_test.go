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
