package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// server is an NBD server in a test. Its zero value serves disk as well as the
// protocol allows.
type server struct {
	disk     []byte
	export   string // what clients must ask for
	plain    bool   // no structured replies
	oldGo    bool   // no GO
	noMeta   bool   // no metadata contexts
	minBlock uint32 // told with infoBlockSize unless 0
	maxBlock uint32
	grain    int // bytes to which holes are found; 0 is 4096
	extents  int // most in one reply; 0 is all
	shuffle  int // so many requests are waited for, and answered in pieces in any order
	// fail gives an errno for a request, 0 for none.
	fail func(command uint16, off int64) uint32

	structured bool
	rng        *rand.Rand
}

// start serves one connection, and gives a client's end of it.
func (s *server) start(t testing.TB) net.Conn {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	done := make(chan error, 1)
	s.rng = rand.New(rand.NewPCG(1, 2))
	go func() { done <- s.serve(conn) }()
	t.Cleanup(func() {
		client.Close()
		// A client that goes with answers unread resets the connection.
		if err := <-done; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("server: %v", err)
		}
	})
	return client
}

func (s *server) serve(conn net.Conn) error {
	defer conn.Close()
	b := binary.BigEndian.AppendUint64(nil, magicServer)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, b[:4]); err != nil {
		return err
	}
	for ready := false; !ready; {
		var err error
		if ready, err = s.option(conn); err != nil {
			return err
		}
	}
	return s.transmit(conn)
}

// option answers one option, and tells whether transmission begins.
func (s *server) option(conn net.Conn) (bool, error) {
	var head [16]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return false, err
	}
	kind := binary.BigEndian.Uint32(head[8:])
	data := make([]byte, binary.BigEndian.Uint32(head[12:]))
	if _, err := io.ReadFull(conn, data); err != nil {
		return false, err
	}
	reply := func(b []byte, typ uint32, data []byte) []byte {
		b = binary.BigEndian.AppendUint64(b, magicReply)
		b = binary.BigEndian.AppendUint32(b, kind)
		b = binary.BigEndian.AppendUint32(b, typ)
		return text(b, data)
	}
	size := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64(nil, uint64(len(s.disk))), flagHasFlags)
	var out []byte
	switch {
	case kind == optionStructuredReply && !s.plain:
		s.structured = true
		out = reply(out, replyAck, nil)
	case kind == optionSetMetaContext && !s.noMeta:
		out = reply(out, replyMetaContext, append([]byte{0, 0, 0, 7}, allocation...))
		out = reply(out, replyAck, nil)
	case kind == optionGo && !s.oldGo:
		name := string(data[4 : 4+binary.BigEndian.Uint32(data)])
		if name != s.export {
			out = reply(out, replyError+6, []byte("no export\x1b[31m "+name))
			break
		}
		out = reply(out, replyInfo, append([]byte{0, infoExport}, size...))
		out = reply(out, replyInfo, []byte{0, 2, 'd', 'i', 's', 'k'})
		if s.minBlock > 0 {
			b := binary.BigEndian.AppendUint32([]byte{0, infoBlockSize}, s.minBlock)
			b = binary.BigEndian.AppendUint32(b, s.minBlock)
			out = reply(out, replyInfo, binary.BigEndian.AppendUint32(b, s.maxBlock))
		}
		out = reply(out, replyAck, nil)
		_, err := conn.Write(out)
		return true, err
	case kind == optionExportName:
		if string(data) != s.export {
			return false, io.EOF
		}
		_, err := conn.Write(size)
		return true, err
	default:
		out = reply(out, replyUnsupported, nil)
	}
	_, err := conn.Write(out)
	return false, err
}

// transmit answers requests until the client disconnects.
func (s *server) transmit(conn net.Conn) error {
	var waiting [][]byte
	for {
		var b [28]byte
		if s.shuffle > 0 { // answer what has come when the client waits
			conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		}
		_, err := io.ReadFull(conn, b[:])
		if err == nil && binary.BigEndian.Uint16(b[6:]) == commandDisconnect {
			return nil
		}
		if err == nil {
			waiting = append(waiting, s.answer(b)...)
		} else if !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			return err
		}
		if len(waiting) < s.shuffle && err == nil {
			continue
		}
		s.mix(waiting)
		for _, w := range waiting {
			if _, err := conn.Write(w); err != nil {
				return nil // a client may leave when it likes
			}
		}
		waiting = nil
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// mix puts pieces of replies in any order; the last piece of each says so.
func (s *server) mix(pieces [][]byte) {
	if s.shuffle == 0 {
		return
	}
	s.rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	last := map[uint64]int{}
	for i, p := range pieces {
		if binary.BigEndian.Uint32(p) == magicStructured {
			binary.BigEndian.PutUint16(p[4:], 0)
			last[binary.BigEndian.Uint64(p[8:])] = i
		}
	}
	for _, i := range last {
		binary.BigEndian.PutUint16(pieces[i][4:], chunkDone)
	}
}

// answer makes the reply to a request, in pieces.
func (s *server) answer(b [28]byte) [][]byte {
	command, cookie := binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint64(b[8:])
	off, n := int(binary.BigEndian.Uint64(b[16:])), int(binary.BigEndian.Uint32(b[24:]))
	code := uint32(0)
	if s.fail != nil {
		code = s.fail(command, int64(off))
	}
	unit := int(max(s.minBlock, 1))
	if off%unit != 0 || n%unit != 0 || off+n > len(s.disk) || n > maxSpan && command == commandRead {
		code = 22
	}
	switch {
	case !s.structured:
		r := binary.BigEndian.AppendUint32(nil, magicSimple)
		r = binary.BigEndian.AppendUint32(r, code)
		r = binary.BigEndian.AppendUint64(r, cookie)
		if code == 0 {
			r = append(r, s.disk[off:off+n]...)
		}
		return [][]byte{r}
	case code != 0:
		p := binary.BigEndian.AppendUint32(nil, code)
		return [][]byte{piece(chunkError, cookie, append(p, "\x00\x09no luck\x00\x1b"...))}
	case command == commandBlockStatus:
		return [][]byte{piece(chunkBlockStatus, cookie, s.status(off, n))}
	}
	return s.pieces(cookie, off, n)
}

func (s *server) pieces(cookie uint64, off, n int) (all [][]byte) {
	for n > 0 {
		part := n
		if s.shuffle > 0 {
			part = min(n, 1+s.rng.IntN(300<<10))
		}
		p := binary.BigEndian.AppendUint64(nil, uint64(off))
		if d := s.disk[off : off+part]; len(bytes.Trim(d, "\x00")) == 0 {
			all = append(all, piece(chunkHole, cookie, binary.BigEndian.AppendUint32(p, uint32(part))))
		} else {
			all = append(all, piece(chunkData, cookie, append(p, d...)))
		}
		off, n = off+part, n-part
	}
	binary.BigEndian.PutUint16(all[len(all)-1][4:], chunkDone)
	return all
}

func piece(kind uint16, cookie uint64, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicStructured)
	b = binary.BigEndian.AppendUint16(b, chunkDone)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, cookie)
	return text(b, payload)
}

// status finds holes.
func (s *server) status(off, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, 7)
	grain := max(s.grain, 1)
	if s.grain == 0 {
		grain = 4096
	}
	state := func(at int) uint32 {
		if len(bytes.Trim(s.disk[at:min(at+grain-at%grain, len(s.disk))], "\x00")) == 0 {
			return stateZero | 1
		}
		return 0
	}
	for count, end := 0, off+n; off < end && (s.extents == 0 || count < s.extents); count++ {
		first, next := state(off), off
		for next < end && state(next) == first {
			next += grain - next%grain
		}
		next = min(next, len(s.disk)) // may be more than was asked for
		b = binary.BigEndian.AppendUint32(b, uint32(next-off))
		b = binary.BigEndian.AppendUint32(b, first)
		off = next
	}
	return b
}
