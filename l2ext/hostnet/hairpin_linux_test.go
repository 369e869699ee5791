package hostnet

import (
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// TestGivenBackOnce gives the bridge a frame for a MAC whose entry still leads to the
// gateway, as when the kernel would not take the entry away: the frame dies there. The
// bridge sends none back to the port by which it came, so that the gateway, which gives
// back what comes for a host of this site, does not do so for ever.
func TestGivenBackOnce(t *testing.T) {
	host := l2ext.MAC{0x52, 0x54, 0, 0, 0, 9}
	for name, w := range map[string]l2ext.Wish{"secure": prod("br0"), "direct": prodDirect("br0")} {
		t.Run(name, func(t *testing.T) {
			n, tap := newLAN(t, machine(t))
			e := l2ext.Entry{MAC: host, Site: 16}
			if w.Direct != nil {
				e.Site = vxlan.Self
			}
			w.Entries = append(w.Entries, e)
			apply(t, n, w)
			read := make(chan string, 100) // more than are sent
			go func() {
				defer close(read)
				for b := make([]byte, 1<<16); ; {
					k, err := n.ReadPacket(b)
					if err != nil {
						return
					}
					if p, _, err := vxlan.Parse(b[:k]); err == nil {
						read <- string(p.Frame)
					}
				}
			}()
			give := func(frame []byte) {
				check(t, n.WritePacket(vxlan.Packet{VNI: 100, From: vxlan.Everyone, To: vxlan.Self, Frame: frame}.Append(nil)))
			}
			back, mark := frame(string(host[:]), "\x88\xb6", 46), frame(string(host[:]), "\x88\xb7", 46)
			give(back)
			_, err := tap.Write(mark) // it follows, from a host
			check(t, err)
			for deadline := time.After(l2exttest.Patience); ; {
				select {
				case got := <-read:
					switch got {
					case string(back):
						t.Error("what was given back came again")
					case string(mark):
						check(t, n.Close())
						for range read {
						}
						return
					}
				case <-deadline:
					t.Fatal("a host's frame for the MAC did not come to the gateway")
				}
			}
		})
	}
}
