package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pack writes a map as memberlist's MessagePack has it.
func pack(kind byte, fields ...any) []byte {
	return append([]byte{kind}, packMap(fields...)...)
}

func packMap(fields ...any) []byte {
	b := []byte{0x80 | byte(len(fields)/2)}
	for _, f := range fields {
		switch v := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(append(b, 0xce), uint32(v))
		case string:
			b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v)))
			b = append(b, v...)
		case bool:
			b = append(b, 0xc2)
		}
	}
	return b
}

// aliveMessage says that a node is alive.
func aliveMessage(node, addr string, inc int, meta string) []byte {
	return pack(msgAlive, "Incarnation", inc, "Node", node, "Addr", addr, "Port", nodePort, "Meta", meta, "Vsn", "\x01\x05\x05\x00\x00\x00")
}

func goodMeta() string { return string(Meta{Version: "1.0"}.Append(nil)) }

func compound(msgs ...[]byte) []byte {
	b := []byte{msgCompound, byte(len(msgs))}
	for _, m := range msgs {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
	}
	for _, m := range msgs {
		b = append(b, m...)
	}
	return b
}

func TestCheckPacket(t *testing.T) {
	ping := pack(msgPing, "SeqNo", 1, "Node", "a/a1")
	tests := []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"ping", ping, true},
		{"with checksum", append([]byte{msgCRC, 0, 0, 0, 0}, ping...), true},
		{"two", compound(ping, ping), true},
		{"none", compound(), true},
		{"empty", nil, false},
		{"too long", make([]byte, maxPacket+1), false},
		{"compressed", []byte{9, 1, 2}, false},
		{"encrypted", []byte{10, 1, 2}, false},
		{"user message", []byte{8, 1}, false},
		{"label", []byte{244, 1, 'x'}, false},
		{"compressed within", compound(ping, []byte{9, 1}), false},
		{"compound within", compound(compound(ping)), false},
		{"checksum twice", append([]byte{msgCRC, 0, 0, 0, 0}, append([]byte{msgCRC, 0, 0, 0, 0}, ping...)...), false},
		{"checksum of nothing", []byte{msgCRC, 0, 0, 0, 0}, false},
		{"cut within the lengths", compound(ping, ping)[:4], false},
		{"cut within a message", compound(ping, ping)[:len(ping)+8], false},
		{"empty message within", compound(nil), false},
	}
	for _, tt := range tests {
		if err := checkPacket(tt.b); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

func TestParseState(t *testing.T) {
	good := append(pack(msgPushPull, "Nodes", 2, "UserStateLen", 0, "Join", false),
		append(packMap("Name", "a/a1", "State", 0, "Incarnation", 7, "Meta", "m"), packMap("Name", "b/b1", "State", 3)...)...)
	nodes, err := parseState(good)
	if err != nil || len(nodes) != 2 || nodes[0].name != "a/a1" || nodes[0].incarnation != 7 || string(nodes[0].meta) != "m" || stateOf(nodes[1].state) != Left {
		t.Errorf("got %+v, %v", nodes, err)
	}
	for i := range good {
		if _, err := parseState(good[:i]); err == nil {
			t.Errorf("cut at %d is taken", i)
		}
	}
	for name, b := range map[string][]byte{
		"too long":       append(good[:len(good):len(good)], 0),
		"a million":      pack(msgPushPull, "Nodes", 1<<20),
		"minus one":      {msgPushPull, 0x81, 0xa5, 'N', 'o', 'd', 'e', 's', 0xff},
		"minus, 32 bits": {msgPushPull, 0x81, 0xa5, 'N', 'o', 'd', 'e', 's', 0xd2, 0xff, 0, 0, 0},
		"user state":     pack(msgPushPull, "Nodes", 0, "UserStateLen", 20<<20),
		"list":           {msgPushPull, 0x91, 0},
		"ping":           pack(msgPing),
	} {
		if nodes, err := parseState(b); err == nil {
			t.Errorf("%s: got %+v", name, nodes)
		}
	}
}

func TestReadFrame(t *testing.T) {
	frame := func(n uint32, b []byte) io.Reader {
		return strings.NewReader(string(binary.BigEndian.AppendUint32(nil, n)) + string(b))
	}
	ping := pack(msgPing, "SeqNo", 1)
	if b, err := readFrame(frame(uint32(len(ping)), ping)); err != nil || string(b) != string(ping) {
		t.Errorf("got %x, %v", b, err)
	}
	for name, r := range map[string]io.Reader{
		"nothing":    strings.NewReader(""),
		"no length":  strings.NewReader("\x00\x00"),
		"empty":      frame(0, nil),
		"huge":       frame(maxMessage+1, nil),
		"cut":        frame(uint32(len(ping)+1), ping),
		"compressed": frame(1, []byte{9}),
		"user":       frame(1, []byte{8}),
	} {
		if b, err := readFrame(r); err == nil {
			t.Errorf("%s: got %x", name, b)
		}
	}
}

func TestMeta(t *testing.T) {
	longest := Meta{Version: strings.Repeat("v", maxVersion), Endpoint: strings.Repeat("e", maxEndpoint), Segments: [8]byte{7: 1}}
	for _, m := range []Meta{{}, {Version: "1.0", Endpoint: "x:1"}, longest} {
		b := m.Append(nil)
		if got, err := ParseMeta(b); err != nil || got != m || len(b) > 512 {
			t.Errorf("%+v: got %+v, %v in %d bytes", m, got, err, len(b))
		}
		for i := range b {
			if _, err := ParseMeta(b[:i]); !errors.Is(err, errMeta) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
		if _, err := ParseMeta(append(b, 0)); err == nil {
			t.Error("a byte too many is taken")
		}
	}
}

// TestInvented: a hostile gateway cannot invent members without end, nor such
// as would print something else, nor put us at another address.
func TestInvented(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a")
		time.Sleep(time.Second)
		for i := range 3 * maxMembers {
			site := fmt.Sprint("x", i)
			a.HandleDatagram("b", aliveMessage(site+"/g", string(siteIP(site)), 1, goodMeta()))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		for _, msg := range [][]byte{
			aliveMessage("y/\x1b[0m", string(siteIP("y")), 1, goodMeta()),
			aliveMessage("y", string(siteIP("y")), 1, goodMeta()),
			aliveMessage("y/g", string(siteIP("z")), 1, goodMeta()),
			aliveMessage("y/g", "", 1, goodMeta()),
			aliveMessage("y/g", string(siteIP("y")), 1, ""),
			aliveMessage("a/a1", string(siteIP("z")), 9, goodMeta()),
			pack(msgAlive, "Node", 7, "Vsn", "x"),
			pack(msgDead, "Incarnation", 1<<30, "Node", "a/a1", "From", "b/b1"),
			pack(msgSuspect, "Incarnation", 1<<30, "Node", "a/a1", "From", "b/b1"),
		} {
			a.HandleDatagram("b", msg)
			synctest.Wait()
		}
		time.Sleep(5 * time.Second)
		members := a.Members()
		if len(members) > maxMembers {
			t.Errorf("%d members, limit %d", len(members), maxMembers)
		}
		for _, m := range members {
			if m.Site == "y" {
				t.Errorf("%+v", m)
			}
			if m.Site == "a" && m.State != Alive {
				t.Errorf("talked into %+v", m)
			}
		}
	})
}

// TestFlood: more packets than memberlist takes are dropped, and nobody waits.
func TestFlood(t *testing.T) {
	tr := newTransport("a", carrier{})
	ping := pack(msgPing, "SeqNo", 1)
	var err error
	for range cap(tr.packets) + 1 {
		err = tr.deliver("b", ping)
	}
	if err == nil {
		t.Error("no end")
	}
	for range maxConns + 1 {
		near, _ := net.Pipe()
		_, err = tr.track("b", near)
	}
	if err == nil {
		t.Error("connections without end")
	}
}

// TestHostileConn sends what memberlist must not read.
func TestHostileConn(t *testing.T) {
	bubble(t, func(t *testing.T, w *wan) {
		a, _ := w.start("a")
		time.Sleep(time.Second)
		for _, msg := range [][]byte{
			{}, {0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1, 9}, {0, 0, 0, 2, 244, 1},
			append([]byte{0, 0, 0, 16}, pack(msgPushPull, "Nodes", 1<<20)...),
		} {
			near, far := net.Pipe()
			go a.HandleConn("b", far)
			near.SetDeadline(time.Now().Add(time.Minute))
			if len(msg) > 0 {
				near.Write(msg)
			}
			// A silent one is cut off after a while, the others at once.
			if _, err := io.Copy(io.Discard, near); err != nil {
				t.Errorf("%x: %v", msg, err)
			}
			near.Close()
		}
		if n := len(a.Members()); n != 1 {
			t.Errorf("%d members", n)
		}
	})
}

// FuzzIn gives one datagram and one connection's bytes to a real memberlist.
func FuzzIn(f *testing.F) {
	ping := pack(msgPing, "SeqNo", 1, "Node", "a/a1", "SourceNode", "b/b1")
	alive := aliveMessage("b/b1", string(siteIP("b")), 1, goodMeta())
	state := append(pack(msgPushPull, "Nodes", 1, "UserStateLen", 0, "Join", false), packMap("Name", "b/b1", "State", 0, "Incarnation", 7, "Meta", goodMeta())...)
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	f.Add(ping, framed(ping))
	f.Add(compound(alive, pack(msgSuspect, "Incarnation", 1, "Node", "a/a1", "From", "b/b1")), framed(state))
	f.Add(pack(msgIndirect, "SeqNo", 1, "Target", string(siteIP("b")), "Port", 1, "Node", "b/b1", "Nack", false), framed(pack(msgErr, "Error", "x")))
	f.Add(append([]byte{msgCRC, 0, 0, 0, 0}, ping...), []byte{0, 4, 0, 1})
	f.Fuzz(func(t *testing.T, packet, stream []byte) {
		bubble(t, func(t *testing.T, w *wan) {
			a, _ := w.start("a")
			synctest.Wait()
			a.HandleDatagram("b", packet)
			near, far := net.Pipe()
			go a.HandleConn("b", far)
			go func() {
				near.Write(stream)
				near.Close()
			}()
			go io.Copy(io.Discard, near)
			time.Sleep(3 * time.Second)
			for _, m := range a.Members() {
				if _, _, err := splitName(m.Name); err != nil {
					t.Error(err)
				}
			}
		})
	})
}

func FuzzParseState(f *testing.F) {
	f.Add(append(pack(msgPushPull, "Nodes", 1, "UserStateLen", 0, "Join", false), packMap("Name", "b/b1", "State", 0, "Incarnation", 7, "Meta", goodMeta())...))
	f.Fuzz(func(t *testing.T, b []byte) {
		nodes, err := parseState(b)
		if err == nil && len(nodes) > len(b) {
			t.Errorf("%d nodes out of %d bytes", len(nodes), len(b))
		}
	})
}

// FuzzMeta: what is read is what would be written, and can be printed.
func FuzzMeta(f *testing.F) {
	f.Add([]byte(goodMeta()))
	f.Add(Meta{}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMeta(b)
		if err != nil {
			return
		}
		if err := m.check(); err != nil || !bytes.Equal(m.Append(nil), b) {
			t.Errorf("%x is %+v, %v", b, m, err)
		}
	})
}

// FuzzPacket: what is let through is of a kind that is used here.
func FuzzPacket(f *testing.F) {
	ping := pack(msgPing, "SeqNo", 1)
	f.Add(ping)
	f.Add(compound(ping, pack(msgSuspect, "Incarnation", 1)))
	f.Add(append([]byte{msgCRC, 0, 0, 0, 0}, compound(ping)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkPacket(b) != nil {
			return
		}
		if len(b) > 5 && b[0] == msgCRC {
			b = b[5:]
		}
		if len(b) == 0 || b[0] > msgNack || b[0] == msgPushPull || b[0] > msgCompound && b[0] < msgNack {
			t.Errorf("%x is let through", b)
		}
	})
}
