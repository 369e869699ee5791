package l2exttest

import (
	"os"
	"slices"
	"sync"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/fast"
)

// port is the overlay port of a segment in mode secure-fast.
type port struct {
	host     *Host
	vni      uint32
	messages chan []byte // maxWaiting; to the gateway
	closing  chan struct{}
	close    func() // once
}

var _ l2ext.Port = (*port)(nil)

func newPort(h *Host, vni uint32) *port {
	p := &port{host: h, vni: vni, messages: make(chan []byte, maxWaiting), closing: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closing) })
	return p
}

// Read waits for the next message.
func (p *port) Read(b []byte) (int, error) {
	select {
	case m := <-p.messages:
		return copy(b, m), nil
	case <-p.closing:
		return 0, os.ErrClosed
	}
}

// Next takes a message that is there.
func (p *port) Next(b []byte) (int, error) {
	select {
	case m := <-p.messages:
		return copy(b, m), nil
	default:
		return 0, nil
	}
}

// Write gives a message to the bridge, which cuts no segments.
func (p *port) Write(b []byte) error {
	_, frame, err := fast.SplitMessage(b)
	if err != nil {
		return err
	}
	head, err := ether.Parse(frame)
	if err != nil {
		return err
	}
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	select {
	case <-p.closing:
		return os.ErrClosed
	default:
	}
	if o := p.host.segments[p.vni]; o != nil && !p.host.firewall {
		o.delivered++
		p.host.forward(o.wish.Bridge, way{overlay: true}, head, frame)
	}
	return nil
}

// OnlyTCP changes nothing: this bridge cuts nothing, as nothing is long.
func (p *port) OnlyTCP() error { return nil }

// offer has the bridge send a frame into the port.
func (p *port) offer(frame []byte) { offer(p.messages, append(fast.Plain(nil), frame...)) }

// Express is what the wire carries beside the link, as a site sees it. The secret
// is another one each time that the line is healed.
func (w *Wire) Express(site string) l2ext.Express { return end{w: w, site: site} }

// expressSize is the length of datagrams, in bytes.
const expressSize = 1452

// Secret is what both ends of a line know.
func (e end) Secret(site string) (s fast.Secret, err error) {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.w.isCut(lane{from: e.site, to: site}) || e.w.ends[site] == nil {
		return s, errCut
	}
	copy(s[:], min(e.site, site)+"-"+max(e.site, site))
	s[len(s)-1] = byte(e.w.heals)
	return s, nil
}

// Size is the longest datagram of the line.
func (e end) Size(string) int { return expressSize }

// Send sends datagrams. They are lost, if at all, together.
func (e end) Send(site string, b []byte, size int) error {
	return e.w.put(lane{e.site, site, false}, item{data: slices.Clone(b), size: size})
}

// Inject has a site receive datagrams from a stranger.
func (w *Wire) Inject(to string, b []byte, size int) (site string) {
	w.mu.Lock()
	m := w.ends[to]
	w.mu.Unlock()
	return m.HandleExpress(slices.Clone(b), size)
}
