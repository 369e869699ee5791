package l2exttest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/vxlan"
)

// directLines tell what String does of a segment in mode direct.
func directLines(d *l2ext.Underlay) (lines []string) {
	for _, s := range d.Sites {
		lines = append(lines, fmt.Sprintf("site %d at %v", s.Site, s.Addr))
	}
	for _, g := range d.Listeners.Groups {
		lines = append(lines, fmt.Sprintf("group %v to %v", g.MAC, g.Sites))
	}
	if d.Listeners.OnlyGroups != [2]bool{} {
		lines = append(lines, fmt.Sprintf("only groups %t", d.Listeners.OnlyGroups))
	}
	if d.Listeners.NoReports != [2]bool{} {
		lines = append(lines, fmt.Sprintf("no reports %t", d.Listeners.NoReports))
	}
	for _, n := range d.Neighbours {
		lines = append(lines, fmt.Sprintf("neighbour %v is %v", n.IP, n.MAC))
	}
	return lines
}

// leave is what happens in mode direct to a frame for the overlay: one for the
// gateway itself comes to the carrier. The underlay of this machine goes nowhere.
func (h *Host) leave(o *overlay, site vxlan.Endpoint, head ether.Header, frame []byte) {
	if site == vxlan.Self || head.Dst == o.wish.Direct.Self {
		offer(h.carrier, vxlan.Packet{VNI: o.wish.VNI, From: vxlan.Self, To: vxlan.Everyone, Frame: frame}.Append(nil))
		return
	}
	if site == 0 && !head.Dst.Group() && o.wish.Policy.Unknown != l2ext.UnknownLimited {
		return
	}
	for _, c := range h.captures[o.wish.VNI] {
		select {
		case c <- l2ext.Captured{At: time.Now(), Frame: slices.Clone(frame), Len: len(frame)}:
		default:
		}
	}
}

// Capture tells what leaves in mode direct; nothing ever comes.
func (h *Host) Capture(ctx context.Context, vni uint32, o l2ext.CaptureOptions, f func(l2ext.Captured) error) (missed uint64, err error) {
	c := make(chan l2ext.Captured, maxWaiting)
	h.mu.Lock()
	if s := h.segments[vni]; s == nil || s.wish.Direct == nil {
		h.mu.Unlock()
		return 0, fmt.Errorf("no segment in mode direct with VNI %d", vni)
	}
	h.captures[vni] = append(h.captures[vni], c)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.captures[vni] = slices.DeleteFunc(h.captures[vni], func(o chan l2ext.Captured) bool { return o == c })
		h.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return 0, nil
		case p := <-c:
			p.Frame = p.Frame[:min(len(p.Frame), o.Snap)]
			if err := f(p); err != nil {
				return 0, err
			}
		}
	}
}

// Traffic knows of none: the underlay of this machine goes nowhere.
func (h *Host) Traffic(uint32) (l2ext.Traffic, bool) { return l2ext.Traffic{}, false }
