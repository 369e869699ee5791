package l2ext_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
	"github.com/longhaul-project/longhaul/l2ext/stream"
)

// pipes are streams that come out at the managers of a world.
type pipes struct {
	w    *world
	site string // whose they are

	mu     sync.Mutex // guards what follows
	opened int
	served sync.WaitGroup
}

func (p *pipes) OpenStream(_ context.Context, site string) (l2ext.Stream, error) {
	near, far := net.Pipe()
	p.mu.Lock()
	p.opened++
	p.mu.Unlock()
	p.served.Go(func() {
		_ = p.w.ms[site].ServeStream(p.site, far)
		far.Close()
	})
	return pipe{near}, nil
}

func (p *pipes) Line(string) l2ext.Line { return l2ext.Line{RTT: time.Second} }

type pipe struct{ net.Conn }

func (p pipe) Reset() { _ = p.Close() }

// withStreams is a world of sites whose segments stream, but for those that are
// old: they know of no streams.
func withStreams(t *testing.T, old string, sites ...string) (*world, map[string]*pipes) {
	inMode(t, l2ext.Secure)
	w, all := emptyWorld(t, l2exttest.Line{Delay: time.Millisecond}), make(map[string]*pipes)
	w.first.Streams = l2ext.StreamsOn
	w.change = func(c *l2ext.Config) {
		all[c.Site] = &pipes{w: w, site: c.Site}
		if c.Site != old {
			c.Streams = all[c.Site]
		}
	}
	t.Cleanup(func() { // when all sites have ended
		for _, p := range all {
			p.served.Wait()
		}
	})
	w.begin(sites)
	return w, all
}

// tcpTo is a full frame of a TCP connection.
func tcpTo(dst, src l2ext.MAC) []byte {
	f := frameTo(dst, src, 1514)
	copy(f[12:], []byte{8, 0, 0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 3, 232, 0, 80})
	return f
}

// TestStreams: TCP goes by a stream and comes out as it was; a flip has it follow
// the VM, frames under way as well; all else goes as datagrams.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := withStreams(t, "", "a", "b", "c")
		client := l2ext.MAC{2, 0, 0, 0, 0, 0xc}
		w.appear("a", "lan", vmMAC, "10.0.0.9")
		w.appear("c", "lan", client, "10.0.0.12")
		w.receive("a", "lan", client)
		say := func(frame []byte) {
			check(t, w.hosts["c"].Send("lan", frame))
			w.settle()
		}
		say(tcpTo(vmMAC, client))
		say(frameTo(vmMAC, client, 100))
		got := w.receive("a", "lan", client)
		if len(got) != 2 || !bytes.Equal(got[0], tcpTo(vmMAC, client)) {
			t.Errorf("%d frames came", len(got))
		}
		v := w.ms["c"].Segments()[0]
		if v.Counts[l2ext.Streamed] != 1 || v.Counts[l2ext.Fragmented] != 0 || all["c"].opened != 1 {
			t.Errorf("%d streams, counts %v", all["c"].opened, v.Counts)
		}
		if s := v.Streams; len(s) != 2 || s[0].Site != "a" || !s[0].On || !strings.Contains(s[0].Why, "policy") {
			t.Errorf("view %+v", s)
		}
		check(t, w.ms["a"].Prepare(t.Context(), "j", []l2ext.NIC{{MAC: vmMAC, Tap: "lan"}}, "b"))
		w.settle()
		check(t, w.ms["a"].Flip(t.Context(), "j"), w.ms["b"].Settle(t.Context(), "j", nil))
		w.settle()
		w.receive("b", "lan", client) // what it said when it appeared
		// To the old site, as if it had been under way: it is sent on, by a stream.
		late := append(stream.Header{VNI: 100, Len: 1514}.Append(stream.AppendBegin(nil)), tcpTo(vmMAC, client)...)
		check(t, w.ms["a"].ServeStream("c", bytes.NewReader(late)))
		w.settle()
		if got := w.receive("b", "lan", client); len(got) != 1 || len(got[0]) != 1514 {
			t.Errorf("%d frames followed the VM", len(got))
		}
		if v := w.ms["a"].Segments()[0]; v.Counts[l2ext.Redirected] != 1 || v.Counts[l2ext.Streamed] != 1 {
			t.Errorf("counts of the old site: %v", v.Counts)
		}
		w.wire.Isolate("c")
		w.settle()
		if s := w.ms["b"].Segments()[0].Streams; s[1].On || !strings.Contains(s[1].Why, "reached") {
			t.Errorf("to a site that is away: %+v", s)
		}
		w.wire.Rejoin("c")
		w.settle()
		if s := w.ms["b"].Segments()[0].Streams; !s[1].On {
			t.Errorf("to a site that is back: %+v", s)
		}
	})
}

// TestStreamsOfOldPeer: a site whose gateway does not say that it takes streams
// gets datagrams.
func TestStreamsOfOldPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := withStreams(t, "b", "a", "b")
		client := l2ext.MAC{2, 0, 0, 0, 0, 0xc}
		w.appear("b", "lan", vmMAC, "10.0.0.9")
		w.appear("a", "lan", client, "10.0.0.12")
		check(t, w.hosts["a"].Send("lan", tcpTo(vmMAC, client)))
		w.settle()
		if got := w.receive("b", "lan", client); len(got) == 0 || len(got[len(got)-1]) != 1514 {
			t.Errorf("%d frames came", len(got))
		}
		v := w.ms["a"].Segments()[0]
		if all["a"].opened != 0 || v.Counts[l2ext.Streamed] != 0 || v.Streams[0].On || !strings.Contains(v.Streams[0].Why, "takes none") {
			t.Errorf("%d streams, view %+v", all["a"].opened, v.Streams)
		}
	})
}

// TestHostileStreams: what a peer may not send ends the stream, or is dropped, and
// nobody is held up for ever.
func TestHostileStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := withStreams(t, "", "a", "b")
		m := w.ms["a"]
		begin := stream.AppendBegin(nil)
		for name, b := range map[string]string{
			"another protocol":  "GET / HTTP/1.1\r\n\r\n",
			"an oversized one":  string(begin) + "\x00\x00\x00\x64\xff\xff",
			"an undersized one": string(begin) + "\x00\x00\x00\x64\x00\x01x",
			"a truncated one":   string(begin) + "\x00\x00\x00\x64\x00\x3cxyz",
			"a cut beginning":   "LF",
			"unknown flags":     string(begin) + "\x80\x00\x00\x64\x00\x3c",
		} {
			if err := m.ServeStream("b", strings.NewReader(b)); !errors.Is(err, stream.ErrFormat) && !errors.Is(err, stream.ErrShort) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := m.ServeStream("z", bytes.NewReader(begin)); err == nil {
			t.Error("a stranger's stream was served")
		}
		frame := func(vni uint32, b []byte) string {
			return string(stream.Header{VNI: vni, Len: len(b)}.Append(nil)) + string(b)
		}
		bad := string(begin) + frame(101, tcpTo(vmMAC, vmMAC)) + frame(100, frameTo(vmMAC, l2ext.MAC{1}, 60)) +
			frame(100, frameTo(l2ext.MAC{1, 0x80, 0xc2, 0, 0, 0}, vmMAC, 60))
		check(t, m.ServeStream("b", strings.NewReader(bad)))
		if v := m.Segments()[0]; v.Counts[l2ext.Received] != 0 || v.Counts[l2ext.DropMalformed] != 1 || v.Counts[l2ext.DropForbidden] != 1 {
			t.Errorf("counts %v", v.Counts)
		}

		var wg sync.WaitGroup
		var refused int
		var mu sync.Mutex
		end := make(chan struct{})
		for range 1000 {
			wg.Go(func() {
				r, wr := io.Pipe()
				defer wr.Close()
				go func() { <-end; wr.Close() }()
				if err := m.ServeStream("b", r); err != nil {
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		mu.Lock()
		if refused < 800 || refused == 1000 {
			t.Errorf("%d of 1000 streams were refused", refused)
		}
		mu.Unlock()
		close(end)
		wg.Wait()
		check(t, m.ServeStream("b", bytes.NewReader(begin))) // there is room again

		// It may say and take back what it can as often as it likes.
		for i := range uint32(1000) {
			b, err := announce.Message{Kind: announce.Able, VNI: 100, Abilities: i}.Append(nil)
			check(t, err, m.HandleUrgent("b", b))
		}
		w.settle()
	})
}

// TestStreamsAreOfSecure: in another mode no frame goes by a stream, and none is
// shown to.
func TestStreamsAreOfSecure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := withStreams(t, "", "a", "b")
		if s := w.ms["a"].Segments()[0].Streams; len(s) != 1 {
			t.Errorf("in mode secure: %+v", s)
		}
		fast := segment("a", []string{"a", "b"})
		fast.Mode = l2ext.SecureFast
		check(t, w.ms["a"].Apply(t.Context(), []l2ext.Segment{fast}))
		if s := w.ms["a"].Segments()[0].Streams; len(s) != 0 {
			t.Errorf("in mode secure-fast: %+v", s)
		}
	})
}
