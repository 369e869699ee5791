package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// framedConn is a connection of the link as memberlist uses it: every Write is
// one message and goes out as a frame; reading gives one frame's content, after
// it has been judged.
type framedConn struct {
	net.Conn
	local, remote net.Addr
	in            []byte // of the frame that is being read
	done          func() // called by the first Close
	once          sync.Once
}

// Write takes one whole message: memberlist writes no other way (v0.7.0,
// net.go:rawSendMsgStream).
func (c *framedConn) Write(b []byte) (int, error) {
	if len(b) > maxMessage {
		return 0, fmt.Errorf("message of %d bytes, limit %d", len(b), maxMessage)
	}
	f := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b)))
	if _, err := c.Conn.Write(append(f, b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *framedConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		in, err := readFrame(c.Conn)
		if err != nil {
			return 0, err
		}
		c.in = in
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

// readFrame reads one message and judges it.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes, limit 1 to %d", n, maxMessage)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, checkMessage(b)
}

func (c *framedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.done)
	return err
}

func (c *framedConn) LocalAddr() net.Addr  { return c.local }
func (c *framedConn) RemoteAddr() net.Addr { return c.remote }

// snapshot is a connection to nowhere that keeps what is written to it.
type snapshot struct {
	keep func([]byte)
}

// snapshotName marks the log lines that taking a snapshot makes memberlist write.
const snapshotName = "longhaul-snapshot"

type snapshotAddr struct{}

func (snapshotAddr) Network() string { return snapshotName }
func (snapshotAddr) String() string  { return snapshotName }

var errSnapshot = fmt.Errorf("%s: taken", snapshotName)

func (s snapshot) Write(b []byte) (int, error)      { s.keep(append([]byte(nil), b...)); return len(b), nil }
func (s snapshot) Read([]byte) (int, error)         { return 0, errSnapshot }
func (s snapshot) Close() error                     { return nil }
func (s snapshot) LocalAddr() net.Addr              { return snapshotAddr{} }
func (s snapshot) RemoteAddr() net.Addr             { return snapshotAddr{} }
func (s snapshot) SetDeadline(time.Time) error      { return nil }
func (s snapshot) SetReadDeadline(time.Time) error  { return nil }
func (s snapshot) SetWriteDeadline(time.Time) error { return nil }
