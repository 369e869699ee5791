package tunnel

import (
	"bytes"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/longhaul-project/longhaul/internal/testwan"
	"github.com/longhaul-project/longhaul/tunnel/frame"
)

// TestHostilePeer has a peer with a good certificate break the protocol, and
// wants the link closed for a clear reason, and little memory used.
func TestHostilePeer(t *testing.T) {
	t.Parallel()
	control := func(fs ...frame.Frame) (b []byte) {
		for _, f := range fs {
			b = f.Append(b)
		}
		return b
	}
	chunks := func(n int, c frame.Chunk) (b []byte) {
		b = frame.Preface{Use: frame.Data}.Append(nil)
		for range n {
			c.Seq++
			b = append(c.Append(b), make([]byte, c.Len)...)
		}
		return b
	}
	var resets, openings []frame.Frame
	for i := range uint64(3 * maxReplies) {
		resets = append(resets, frame.Reset{Channel: 2*i + 100001})
	}
	for i := range uint64(2 * maxChannels) {
		openings = append(openings, frame.Open{Channel: 2*i + 1, Forward: frame.ClassBulk, Back: frame.ClassBulk})
	}
	pings := make([]frame.Frame, 5000)
	for i := range pings {
		pings[i] = frame.Ping{Nonce: uint64(i), Pad: 100}
	}
	const either = "the link may live on, if the answers leave as fast"
	for _, tt := range []struct {
		name    string
		control []byte // written to the control stream
		data    []byte // written to a new unidirectional stream
		why     string // "": the link lives on
	}{
		{"window", nil, chunks(200, frame.Chunk{Channel: 1, Total: 1 << 20, Len: frame.MaxChunk}), "its window is"},
		{"small messages", nil, chunks(700_000, frame.Chunk{Channel: 1, Seq: 1}), "its window is"},
		{"length", []byte{byte(frame.TypeOpen), 0xff, 0xff, 0xff}, nil, "frame of type 4 with 16777215 bytes"},
		{"chunk", nil, chunks(1, frame.Chunk{Channel: 1, Total: 1 << 31, Len: 1}), "bytes at 0 of 2147483648"},
		{"header without end", nil, append(frame.Preface{Use: frame.Data}.Append(nil),
			append(bytes.Repeat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 2), bytes.Repeat([]byte{0x80}, 100)...)...), "more than 64 bits"},
		{"cells", nil, chunks(1, frame.Chunk{Channel: 1, Total: 1 << 20, Len: 5}), "not whole cells"},
		{"stream", nil, []byte("GET / HTTP/1.1\r\n"), "preface begins with"},
		{"ack of nothing", control(frame.Open{Channel: 1, Forward: 1, Back: 1}, frame.Ack{Channel: 1, Received: 5, Done: 5}), nil, "never sent"},
		{"ack of no channel", control(frame.Ack{Channel: 2}), nil, "never opened"},
		{"not its number", control(frame.Open{Channel: 2, Forward: 1, Back: 1}), nil, "not the peer's to open"},
		{"two ends", control(frame.Open{Channel: 1, Forward: 1, Back: 1}, frame.Fin{Channel: 1, Last: 5}, frame.Fin{Channel: 1, Last: 6}), nil, "is the last"},
		{"many channels", control(openings...), nil, "more than 1024 channels"},
		{"hello again", control(frame.Hello{Role: frame.Priority, Site: "a"}), nil, "unexpected frame.Hello"},
		{"unknown frame", control(frame.Unknown{Type: 99, Body: []byte("x")}), nil, ""},
		{"resets", control(resets...), nil, either},
		{"pings", control(pings...), nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLab(t, testwan.Line{Delay: time.Millisecond}, options{}, func(t *testing.T, l *lab) {
				l.up()
				victim := l.b.Link("a")
				l.a.Link("b").mu.Lock()
				c := l.a.Link("b").set.priority
				l.a.Link("b").mu.Unlock()
				_, down := victim.Watch()
				go func() {
					if _, err := c.ctl.Write(tt.control); err != nil {
						return
					}
					if tt.data != nil {
						if str, err := c.conn.OpenUniStreamSync(t.Context()); err == nil {
							_, _ = str.Write(tt.data)
						}
					}
				}()
				select {
				case <-down:
				case <-time.After(20 * time.Second):
				}
				s := victim.State()
				if tt.why != either && (s.Up && tt.why != "" || !s.Up && tt.why == "" || !strings.Contains(s.Why, tt.why)) {
					t.Errorf("up %v, why %q; want %q", s.Up, s.Why, tt.why)
				}
				if held := victim.buffered.held.Load(); held > mostAdvance+16<<20 {
					t.Errorf("holds %d bytes", held)
				}
			})
		})
	}
}

// TestWrongNames: a certificate of the fleet is no licence to be another site.
func TestWrongNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, why string
		change    func(c *Config) // of b
	}{
		{"another site", `certificate: it is of site "x"`, func(c *Config) { c.ServerTLS = fleet().config("x", "b1") }},
		{"another gateway", `it is of gateway "b2" of site "b", who says to be "b1"`, func(c *Config) { c.ServerTLS = fleet().config("b", "b2") }},
		{"another fleet", "certificate: ", func(c *Config) {
			c.ServerTLS = newAuthority().config("b", "b1")
			c.ServerTLS.VerifyConnection, c.ServerTLS.ClientAuth = nil, tls.NoClientCert
		}},
		{"does not trust us", "certificate: refused by the peer: ", func(c *Config) { c.ServerTLS.VerifyConnection = newAuthority().config("b", "b1").VerifyConnection }},
		{"not there", "no answer from 192.0.2.2:7447 for ", func(c *Config) { c.Listen = ":9" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inLab(t, testwan.Line{Delay: time.Millisecond}, options{b: tt.change}, func(t *testing.T, l *lab) {
				time.Sleep(7 * time.Second)
				if s := l.a.Link("b").State(); s.Up || !strings.Contains(s.Why, tt.why) {
					t.Errorf("up %v, why %q; want %q", s.Up, s.Why, tt.why)
				}
				if _, err := l.a.Link("b").Dial(t.Context(), 1); !errors.Is(err, ErrDown) {
					t.Errorf("dial: %v", err)
				}
				if err := l.a.Link("b").SendDatagram(1, nil); !errors.Is(err, ErrDown) {
					t.Errorf("datagram: %v", err)
				}
			})
		})
	}
}

// TestSecondGateway: another gateway of the same site does not push out the
// one that is in use, and takes over when that one is gone.
func TestSecondGateway(t *testing.T) {
	t.Parallel()
	inLab(t, testwan.Line{Delay: time.Millisecond}, options{onlyB: true}, func(t *testing.T, l *lab) {
		l.up()
		c := config("b", l.wan.Site("192.0.2.3"))
		c.ClientTLS, c.Gateway = fleet().config("b", "b2"), "b2"
		other := run(t, c, Peer{Site: "a", Addrs: []string{ipA + ":7447"}})
		defer other.stop()
		time.Sleep(30 * time.Second)
		if s := l.a.Link("b").State(); !s.Up || s.Gateway != "b1" || time.Since(s.Since) < 29*time.Second {
			t.Errorf("%+v", s)
		}
		l.b.stop()
		time.Sleep(5 * time.Second)
		if s := l.a.Link("b").State(); !s.Up || s.Gateway != "b2" {
			t.Errorf("%+v", s)
		}
	})
}

// TestStrangers: a flood of handshakes must first prove its addresses.
func TestStrangers(t *testing.T) {
	t.Parallel()
	inLab(t, testwan.Line{Delay: time.Millisecond}, options{}, func(t *testing.T, l *lab) {
		l.up()
		site := l.wan.Site("203.0.113.9")
		conf := newAuthority().config("x", "x1")
		for range validateAbove + 20 {
			pc, to, err := site.Dial(t.Context(), "", ipB+":7447")
			if err != nil {
				t.Fatal(err)
			}
			tr := &quic.Transport{Conn: pc}
			if conn, err := tr.Dial(t.Context(), to, conf, nil); err == nil {
				<-conn.Context().Done()
			}
			_ = tr.Close()
			_ = pc.Close()
		}
		n := l.b.Node
		n.mu.Lock()
		inbound := n.inbound
		n.mu.Unlock()
		if inbound != 0 || len(n.Links()) != 1 || !n.Link("a").State().Up {
			t.Errorf("inbound %d, links %v", inbound, n.Links())
		}
	})
}
