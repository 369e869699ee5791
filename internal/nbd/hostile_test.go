package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// quiet is a connection on which a server says what it has said to another
// client, whatever this one asks, and then hangs up.
type quiet struct {
	net.Conn
	stream []byte
	rest   *bytes.Reader
}

func (q *quiet) Read(p []byte) (int, error)  { return q.rest.Read(p) }
func (q *quiet) Write(p []byte) (int, error) { return len(p), nil }
func (q *quiet) Close() error                { return nil }
func (q *quiet) SetDeadline(time.Time) error { return nil }

// start is a real connection instead, on which the server then stays silent.
func (q *quiet) start(t *testing.T) net.Conn {
	client, server := net.Pipe()
	go io.Copy(io.Discard, server)
	go server.Write(q.stream)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client
}

// replay has a client read the disk of a server that sends these bytes.
func replay(stream []byte) ([]byte, error) {
	q := &quiet{rest: bytes.NewReader(stream)}
	c, err := open(context.Background(), q, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if c.Size() > 8<<20 { // so that the test's own memory says nothing
		for from := int64(0); ; {
			off, data, err := c.Next(context.Background(), from)
			if err != nil {
				return nil, err
			}
			from = off + int64(len(data))
		}
	}
	return readAll(context.Background(), c, 0)
}

// record gives what a server sends to a client that reads its disk.
func record(t testing.TB, s *server) []byte {
	t.Helper()
	return hear(t, s.start(t), s.export)
}

// hear gives what the server at the other end says.
func hear(t testing.TB, conn net.Conn, export string) []byte {
	t.Helper()
	tap := &tap{Conn: conn}
	c, err := open(t.Context(), tap, export)
	if err == nil {
		_, err = readAll(t.Context(), c, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return tap.heard
}

type tap struct {
	net.Conn
	heard []byte
}

func (c *tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.heard = append(c.heard, p[:n]...)
	return n, err
}

// TestCut ends the connection after every byte of what a server says.
func TestCut(t *testing.T) {
	disk := make([]byte, 4096, 4496) // a hole, then data
	disk = append(disk, bytes.Repeat([]byte("data"), 100)...)
	for name, s := range map[string]*server{"all": {}, "plain": {plain: true}, "oldest": {plain: true, oldGo: true}} {
		s.disk = disk
		stream := record(t, s)
		if got, err := replay(stream); err != nil || !bytes.Equal(got, disk) {
			t.Fatalf("%s: not cut: %v", name, err)
		}
		for n := range stream {
			_, err := replay(stream[:n])
			if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				t.Errorf("%s cut at %d of %d: %v", name, n, len(stream), err)
			}
		}
	}
}

// put replaces the bytes of a stream from where mark begins, plus off.
func put(stream []byte, mark uint32, nth, off int, b ...byte) []byte {
	stream = bytes.Clone(stream)
	m := binary.BigEndian.AppendUint32(nil, mark)
	at := 0
	for range nth {
		at += bytes.Index(stream[at:], m) + len(m)
	}
	copy(stream[at-len(m)+off:], b)
	return stream
}

func TestHostileServers(t *testing.T) {
	const reply = magicReply & 0xffffffff // its low half: the option follows at 4, type at 8, length at 12, data at 16
	disk := bytes.Repeat([]byte("disk"), 2048)
	stream := record(t, &server{disk: disk})
	plain := record(t, &server{disk: disk, plain: true})
	// The replies: structured, the context and its end, export, description, end. Then the extents and the data.
	for _, c := range []struct {
		stream []byte
		want   string
	}{
		{put(stream, 0x4e42444d, 1, 0, 'H'), "greeting begins with 0x4842444d41474943: no NBD server"},
		{put(stream, 0x49484156, 1, 0, 0, 0, 0x42, 2, 0x81, 0x86, 0x12, 0x53), "the server speaks the oldstyle handshake; want newstyle"},
		{put(stream, 0x49484156, 1, 0, 'X'), "greeting goes on with 0x58484156454f5054: no NBD server"},
		{put(stream, 0x49484156, 1, 8, 0, 2), "greeting has flags 0x2; want fixed newstyle"},
		{put(stream, reply, 1, 0, 9), "asking for structured replies: reply begins with 0x0003e889095565a9"},
		{put(stream, reply, 1, 4, 9), "asking for structured replies: reply to option 150994952; want 8"},
		{put(stream, reply, 1, 12, 0, 1, 0, 1), "asking for structured replies: reply of 65537 bytes; want at most 65536"},
		{put(stream, reply, 1, 12, 255, 255, 255, 255), "asking for structured replies: reply of 4294967295 bytes; want at most 65536"},
		{put(stream, reply, 4, 16, 0, 9), `opening export "": server does not tell the size`},
		{put(stream, reply, 4, 18, 0x80), "export of 9223372036854784000 bytes"},
		{put(stream, reply, 4, 26, 0, 0), "export with flags 0x0"},
		{put(stream, reply, 5, 16, 0, 3), `opening export "": information 3 of 6 bytes`},
		{put(stream, magicStructured, 1, 0, 1), "reply begins with 0x018e33ef"},
		{put(stream, magicStructured, 1, 0, 0x67, 0x44, 0x66, 0x98), "reply begins with 0x0000000c"}, // the extents then fail, as they may
		{put(stream, magicStructured, 1, 8, 1), "structured reply of type 5, 12 bytes: it answers a request 72057594037927937 that waits for nothing"},
		{put(stream, magicStructured, 1, 6, 0, 0), "structured reply of type 0, 12 bytes: it cannot answer a request for extents"},
		{put(stream, magicStructured, 1, 6, 0, 1), "structured reply of type 1, 12 bytes: it cannot answer a request for extents"},
		{put(stream, magicStructured, 1, 16, 255, 255, 255, 252), "structured reply of type 5, 4294967292 bytes: it cannot answer a request for extents"},
		{put(stream, magicStructured, 1, 16, 0, 0, 0, 11), "structured reply of type 5, 11 bytes: it cannot answer a request for extents"},
		{put(stream, magicStructured, 1, 20, 1), "structured reply of type 5, 12 bytes: extents of context 16777223; want 7"},
		{put(stream, magicStructured, 1, 24, 0, 0, 0, 0), "structured reply of type 5, 12 bytes: extent of 0 bytes at 0"},
		{put(put(stream, magicStructured, 1, 6, 0x80, 1), magicStructured, 1, 24, 0x20), "structured reply of type 32769, 12 bytes: message of 8192 bytes"},
		{put(stream, magicStructured, 2, 6, 0, 0), "structured reply of type 0, 8200 bytes: it cannot answer a read"},
		{put(stream, magicStructured, 2, 6, 0, 2), "structured reply of type 2, 8200 bytes: it cannot answer a read"},
		{put(stream, magicStructured, 2, 6, 0, 9), "structured reply of type 9, 8200 bytes: it cannot answer a read"},
		{put(stream, magicStructured, 2, 6, 0x80, 1), "structured reply of type 32769, 8200 bytes: want 6 to 4110 bytes of error"},
		{put(stream, magicStructured, 2, 16, 0, 0, 0x20, 7), "structured reply of type 1, 8199 bytes: read of 8192 bytes at 0 ends after 8191"},
		{put(stream, magicStructured, 2, 16, 0, 0, 0x20, 9), "structured reply of type 1, 8201 bytes: 8193 bytes at 0 for a read of 8192 at 0"},
		{put(stream, magicStructured, 2, 16, 255, 255, 255, 255), "structured reply of type 1, 4294967295 bytes: 4294967287 bytes at 0 for a read of 8192 at 0"},
		{put(stream, magicStructured, 2, 20, 255), "structured reply of type 1, 8200 bytes: 8192 bytes at 18374686479671623680 for a read of 8192 at 0"},
		{put(stream, magicStructured, 2, 27, 1), "structured reply of type 1, 8200 bytes: 8192 bytes at 1 for a read of 8192 at 0"},
		{put(plain, magicSimple, 1, 4, 0, 0, 0, 28), "reading 8192 bytes at 0: server says ENOSPC"},
		{put(plain, magicSimple, 1, 8, 1), "simple reply to a request 72057594037927937 that waits for none"},
		{put(plain, magicSimple, 1, 0, 0x66, 0x8e, 0x33, 0xef), "reply begins with 0x668e33ef"},
	} {
		if _, err := replay(c.stream); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// TestManyReplies answers an option without end.
func TestManyReplies(t *testing.T) {
	stream := record(t, &server{disk: []byte{1}})
	head := stream[:18+20] // greeting, structured replies
	one := bytes.Clone(stream[38 : 38+20+4+len(allocation)])
	_, err := replay(append(bytes.Clone(head), bytes.Repeat(one, 100)...))
	if err == nil || err.Error() != "asking for base:allocation: more than 64 replies" {
		t.Error(err)
	}
}
