package wan

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// The first byte of a connection or stream says what it is for.
const (
	forBulk = 1 + iota
	forPings
)

// chunkLen is what is written at once.
const chunkLen = 64 << 10

// tcp is the kernel's.
type tcp struct{}

func (tcp) serve(ctx context.Context, c endConfig, got *tally, ready func()) error {
	ln, err := listenConfig(c).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	defer ln.Close()
	ready()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go take(conn, got)
	}
}

func listenConfig(c endConfig) *net.ListenConfig {
	return &net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return setCongestion(raw, c.Peer.Congestion) }}
}

// take serves a connection or stream.
func take(conn io.ReadWriter, got *tally) {
	buf := make([]byte, chunkLen)
	if _, err := io.ReadFull(conn, buf[:1]); err != nil {
		return
	}
	if buf[0] == forPings {
		_, _ = io.Copy(conn, conn)
		return
	}
	for {
		n, err := conn.Read(buf)
		got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func (tcp) dial(ctx context.Context, c endConfig) (sender, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return setCongestion(raw, c.Peer.Congestion) }}
	var s streams
	for i := range c.Peer.Conns + 1 {
		conn, err := d.DialContext(ctx, "tcp", c.Addr)
		if err != nil {
			return nil, err
		}
		if i == c.Peer.Conns {
			s.pings = conn
		} else {
			s.bulks = append(s.bulks, conn)
		}
	}
	return s, s.announce()
}

// streams are the connections of a sender: all but one for bulk.
type streams struct {
	bulks []io.Writer
	pings io.ReadWriter
}

// announce says what each is for.
func (s streams) announce() error {
	for _, w := range s.bulks {
		if _, err := w.Write([]byte{forBulk}); err != nil {
			return err
		}
	}
	_, err := s.pings.Write([]byte{forPings})
	return err
}

func (s streams) bulk(context.Context) error {
	var wg sync.WaitGroup
	failed := make(chan error, len(s.bulks)) // one each
	for _, w := range s.bulks {
		wg.Go(func() {
			buf := make([]byte, chunkLen)
			for {
				if _, err := w.Write(buf); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	return fmt.Errorf("all connections have ended: %w", <-failed)
}

func (s streams) echo(context.Context) (io.ReadWriter, error) { return s.pings, nil }
