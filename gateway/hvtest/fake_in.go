package hvtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/page"
)

var (
	errTooLong   = errors.New("length over its limit")
	errNotStream = errors.New("not a migration stream")
)

// An incoming is the migration into a process.
type incoming struct {
	p       *proc
	breakAt int64

	// A channel that has read SYNC tells the main one and waits for it. Both
	// without capacity: it is a meeting.
	synced, release chan struct{}

	mu       sync.Mutex
	accepted int
	silent   []chan struct{} // closed by the first byte of a connection
}

func newIncoming(p *proc) *incoming {
	return &incoming{p: p, synced: make(chan struct{}), release: make(chan struct{})}
}

// accept takes a connection: the first is the main channel.
func (in *incoming) accept(conn net.Conn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.accepted
	in.accepted++
	if n > in.p.channels {
		conn.Close() // QEMU: "Extra incoming migration connection; ignoring"
		return
	}
	if n == 0 {
		in.breakAt = in.p.host.takeBreak()
	}
	spoken := make(chan struct{})
	in.silent = append(in.silent, spoken)
	in.p.host.wg.Go(func() { in.serve(n, conn, spoken) })
}

// waitPeeked returns when no connection is silent.
func (in *incoming) waitPeeked(ctx context.Context) error {
	in.mu.Lock()
	silent := slices.Clone(in.silent)
	in.mu.Unlock()
	for _, spoken := range silent {
		select {
		case <-spoken:
		case <-ctx.Done():
			return fmt.Errorf("the monitor hangs, a connection is silent: %w", context.Cause(ctx))
		}
	}
	return nil
}

// serve reads one connection to its end.
func (in *incoming) serve(n int, conn net.Conn, spoken chan struct{}) {
	defer conn.Close()
	stop := context.AfterFunc(in.p.ctx, func() { conn.Close() })
	defer stop()
	in.p.host.lag(in.p.ctx)
	var src io.Reader = conn
	if n == 0 && in.breakAt > 0 {
		src = io.LimitReader(conn, in.breakAt)
	}
	r := bufio.NewReaderSize(src, 64<<10)
	_, err := r.Peek(1)
	close(spoken)
	if err != nil {
		err = errNotStream
	} else if n == 0 {
		err = in.loadMain(&streamReader{r: r}, conn)
	} else {
		err = in.loadChannel(&streamReader{r: r})
	}
	if err != nil {
		in.fail(err)
	}
}

// fail ends the process, as QEMU's does: load of migration failed.
func (in *incoming) fail(err error) {
	in.p.mu.Lock()
	if in.p.state != gateway.Incoming {
		in.p.mu.Unlock()
		return
	}
	in.p.progress.Error = err.Error()
	in.p.setStatus("failed")
	in.p.dawdle()
	in.p.mu.Unlock()
	in.p.exit("load of migration failed: " + err.Error())
}

// loadMain loads the main channel, and says SHUT when it has all.
func (in *incoming) loadMain(s *streamReader, conn net.Conn) error {
	if s.u32() != streamMagic || s.u32() != streamVersion || s.err != nil {
		return errNotStream
	}
	in.p.mu.Lock()
	in.p.setStatus("active")
	in.p.mu.Unlock()
	l := &loader{streamReader: s, in: in, back: conn}
	if err := l.load(); err != nil {
		return err
	}
	in.p.host.lag(in.p.ctx)
	in.p.mu.Lock()
	if in.p.state == gateway.Gone {
		in.p.mu.Unlock()
		return errKilled
	}
	in.p.epoch = l.cpu.epoch
	in.p.memoryOK = in.p.mem.digest() == l.cpu.digest
	in.p.state = gateway.Paused
	in.p.setStatus("completed")
	in.p.dawdle()
	in.p.mu.Unlock()
	// That the source may not hear this is the source's affair.
	conn.Write([]byte{0, rpShut, 0, 4, 0, 0, 0, 0})
	return nil
}

// loadChannel loads one multifd connection, until the source closes it.
func (in *incoming) loadChannel(s *streamReader) error {
	var first [multifdInit]byte
	if s.full(first[:]); s.err != nil || binary.BigEndian.Uint32(first[:]) != multifdMagic {
		return fmt.Errorf("opening a channel: %w", errNotStream)
	}
	var h [multifdHeader]byte
	for {
		s.full(h[:])
		if s.err != nil {
			return nil // the main channel decides
		}
		if err := in.loadPacket(s, h[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(h[8:])&multifdSync == 0 {
			continue
		}
		for _, meet := range []func() bool{
			func() bool { return sendOr(in.p.ctx, in.synced) },
			func() bool { return recvOr(in.p.ctx, in.release) },
		} {
			if !meet() {
				return nil
			}
		}
	}
}

func (in *incoming) loadPacket(s *streamReader, h []byte) error {
	pages := binary.BigEndian.Uint32(h[16:])
	if binary.BigEndian.Uint32(h) != multifdMagic || pages > multifdPages {
		return fmt.Errorf("reading a packet: %w", errNotStream)
	}
	if pages == 0 {
		return nil
	}
	name, _, _ := cutZero(h[64:320])
	data := make([]byte, page.Size)
	for i := range pages {
		if s.full(data); s.err != nil {
			return fmt.Errorf("reading a packet: %w", s.err)
		}
		if err := in.p.store(name, binary.BigEndian.Uint64(h[320+8*i:]), data); err != nil {
			return err
		}
	}
	return nil
}

// syncChannels lets the channels go on when all have come to this point.
func (in *incoming) syncChannels() error {
	for range in.p.channels {
		if !recvOr(in.p.ctx, in.synced) {
			return errKilled
		}
	}
	for range in.p.channels {
		if !sendOr(in.p.ctx, in.release) {
			return errKilled
		}
	}
	return nil
}

func sendOr(ctx context.Context, c chan<- struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func recvOr(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

// store puts a page into the guest's memory.
func (p *proc) store(name string, offset uint64, data []byte) error {
	for _, b := range p.guest.blocks() {
		if b.name == name && offset%page.Size == 0 && offset < uint64(b.size) {
			p.mu.Lock()
			defer p.mu.Unlock()
			copy(p.mem.bytes[b.start+int64(offset):], data)
			return nil
		}
	}
	return fmt.Errorf("page %q at %#x: no such memory", name, offset)
}

func cutZero(b []byte) (text string, rest []byte, found bool) {
	i := slices.Index(b, 0)
	if i < 0 {
		return string(b), nil, false
	}
	return string(b[:i]), b[i:], true
}
