package hvtest

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/internal/page"
)

var (
	errCancelled = errors.New("cancelled")
	errLegBroke  = errors.New("leg broke, as the test wished")
)

// partPages is the number of pages in one section of RAM.
const partPages = 64

// An outgoing is one migration away from a process.
type outgoing struct {
	p       *proc
	uri     string
	params  gateway.MoveParams
	breakAt int64
	ctx     context.Context
	cancel  context.CancelCauseFunc
	proceed chan struct{} // capacity 1: one Continue
	done    chan struct{} // closed under p.mu, when the process has settled
	raised  bool          // guarded by p.mu: the downtime limit was raised

	stopped  bool // the guest ran until we stopped it
	main     *streamWriter
	channels []net.Conn
	packets  uint64 // multifd packets sent
}

func (o *outgoing) active() bool {
	if o == nil {
		return false
	}
	select {
	case <-o.done:
		return false
	default:
		return true
	}
}

// startOutgoing begins a migration. The caller holds mu.
func (p *proc) startOutgoing(uri string, params gateway.MoveParams) {
	o := &outgoing{
		p: p, uri: uri, params: params, breakAt: p.host.takeBreak(),
		proceed: make(chan struct{}, 1), done: make(chan struct{}),
	}
	o.ctx, o.cancel = context.WithCancelCause(p.ctx)
	p.out = o
	p.progress = gateway.Progress{Total: p.guest.Memory + romSize}
	p.setStatus("setup")
	p.mem.track()
	p.host.wg.Go(o.run)
}

// run migrates, and leaves the process as QEMU would.
func (o *outgoing) run() {
	err := o.migrate()
	p := o.p
	p.host.lag(p.ctx) // its leg is closed, and it is still under way
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(o.done)
	cause := context.Cause(o.ctx)
	o.cancel(nil)
	p.mem.dirty = nil
	switch {
	case p.state == gateway.Gone:
		return
	case err == nil:
		p.setStatus("completed")
		p.state = gateway.Moved
		return
	case errors.Is(cause, errCancelled):
		p.setStatus("cancelled")
	default:
		if cause != nil {
			err = cause
		}
		p.progress.Error = err.Error()
		p.setStatus("failed")
		p.dawdle()
	}
	if o.stopped { // as QEMU: what it stopped, it starts again
		p.run()
	}
}

// migrate returns nil when the destination has said that it has all.
func (o *outgoing) migrate() error {
	conn, err := o.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer conn.Close() // wakes readReturnPath
	shut := make(chan struct{})
	wg.Go(func() { o.readReturnPath(conn, shut) })

	var w io.Writer = conn
	if o.breakAt > 0 {
		w = &breakingWriter{conn, o.breakAt}
	}
	o.main = &streamWriter{w: bufio.NewWriterSize(w, 32<<10)}
	defer o.closeChannels()
	if err := o.openChannels(); err != nil {
		return err
	}
	if err := o.precopy(); err != nil {
		return err
	}
	if err := o.switchover(); err != nil {
		return err
	}
	select {
	case <-shut:
		return nil
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	}
}

// dial opens one connection of the migration, which ends with it.
func (o *outgoing) dial() (net.Conn, error) {
	network, address, ok := strings.Cut(o.uri, ":")
	if !ok || (network != "unix" && network != "tcp") {
		return nil, fmt.Errorf("migrating to %q: not a uri of a socket", o.uri)
	}
	var d net.Dialer
	conn, err := d.DialContext(o.ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("migrating to %s: %w", o.uri, err)
	}
	context.AfterFunc(o.ctx, func() { conn.Close() })
	return conn, nil
}

// readReturnPath closes shut when the destination says so, and else ends the
// migration.
func (o *outgoing) readReturnPath(conn net.Conn, shut chan struct{}) {
	s := &streamReader{r: bufio.NewReader(conn)}
	for {
		kind, length := s.u16(), s.u16()
		if kind == rpShut && length == 4 {
			if code := s.u32(); s.err == nil && code == 0 {
				close(shut)
				return
			} else if s.err == nil {
				s.err = fmt.Errorf("destination says %d", code)
			}
		}
		s.skip(int(length), 512)
		if s.err != nil {
			o.cancel(fmt.Errorf("reading the return path: %w", s.err))
			return
		}
	}
}

// precopy sends memory in rounds until the guest is to be stopped.
func (o *outgoing) precopy() error {
	o.main.header()
	o.main.begin(elemStart, ramSection, "ram", ramVersion)
	o.main.memSize(o.p.guest.blocks())
	if err := o.endOfSection(); err != nil {
		return err
	}
	for round := 1; ; round++ {
		o.p.mu.Lock()
		o.p.progress.Rounds = round
		o.p.emit(gateway.EventPass, "")
		if round == 1 { // QEMU tells in this order
			o.p.setStatus("active")
		}
		converged := (o.p.guest.Rounds > 0 && round >= o.p.guest.Rounds) || (o.p.guest.Rounds < 0 && o.raised)
		o.p.mu.Unlock()
		pace := time.NewTimer(o.p.guest.Pace)
		if err := o.round(); err != nil {
			return err
		}
		if converged {
			pace.Stop()
			return nil
		}
		select {
		case <-pace.C:
		case <-o.ctx.Done():
			return context.Cause(o.ctx)
		}
	}
}

// round sends all pages that have changed. Meanwhile the guest changes others.
func (o *outgoing) round() error {
	o.p.mu.Lock()
	pages := o.p.mem.takeDirty()
	if o.p.state == gateway.Running {
		o.p.mem.touch(o.p.guest.Dirty, int(o.p.guest.Memory/page.Size))
		o.p.progress.DirtyRate = int64(o.p.guest.Dirty*page.Size) * int64(time.Second/o.p.guest.Pace)
	}
	o.p.mu.Unlock()
	for part := range slices.Chunk(pages, partPages) {
		if err := o.section(elemPart, part); err != nil {
			return err
		}
	}
	return nil
}

// switchover stops the guest, waits for Continue and sends the rest.
func (o *outgoing) switchover() error {
	o.p.mu.Lock()
	o.stopped = o.p.stop()
	o.p.dawdle()
	o.p.setStatus("pre-switchover")
	o.p.mu.Unlock()
	select {
	case <-o.proceed:
	case <-o.ctx.Done():
		return context.Cause(o.ctx)
	}
	o.p.mu.Lock()
	o.p.setStatus("device")
	cpu := cpuState{epoch: o.p.epoch, digest: o.p.mem.digest()}
	pages := o.p.mem.takeDirty()
	o.p.mu.Unlock()
	for len(pages) > partPages {
		if err := o.section(elemPart, pages[:partPages]); err != nil {
			return err
		}
		pages = pages[partPages:]
	}
	if err := o.section(elemEnd, pages); err != nil {
		return err
	}
	o.main.devices(cpu)
	return o.flush()
}

// section sends one section of RAM.
func (o *outgoing) section(elem byte, pages []int) error {
	o.main.begin(elem, ramSection, "", 0)
	if err := o.sendPages(pages); err != nil {
		return err
	}
	return o.endOfSection()
}

// endOfSection ends a section of RAM, in step with the channels.
func (o *outgoing) endOfSection() error {
	for _, c := range o.channels {
		if err := o.send(c, channelPacket(o.packets, multifdSync, block{}, nil, nil)); err != nil {
			return err
		}
	}
	o.main.u64(ramEOS)
	o.main.footer(ramSection)
	return o.flush()
}

func (o *outgoing) flush() error {
	if err := o.main.w.Flush(); err != nil {
		return fmt.Errorf("writing the stream: %w", err)
	}
	return nil
}

// sendPages writes pages to the main channel or, but for zeroes, to another.
func (o *outgoing) sendPages(pages []int) error {
	blocks := o.p.guest.blocks()
	data := make([]byte, page.Size)
	for _, b := range blocks {
		var offsets []int64
		var bodies [][]byte
		for _, n := range pages {
			offset := int64(n)*page.Size - b.start
			if offset < 0 || offset >= b.size {
				continue
			}
			o.p.mu.Lock()
			copy(data, o.p.mem.page(n))
			o.p.progress.Transferred += page.Size
			o.p.mu.Unlock()
			if len(o.channels) == 0 || isZero(data) {
				o.main.page(b, offset, data)
				continue
			}
			offsets, bodies = append(offsets, offset), append(bodies, data)
			data = make([]byte, page.Size)
		}
		if len(bodies) > 0 {
			c := o.channels[o.packets%uint64(len(o.channels))]
			if err := o.send(c, channelPacket(o.packets, 0, b, offsets, bodies)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *outgoing) send(c net.Conn, packet []byte) error {
	o.packets++
	if _, err := c.Write(packet); err != nil {
		return fmt.Errorf("writing to a channel: %w", err)
	}
	return nil
}

func (o *outgoing) openChannels() error {
	var uuid [16]byte
	hex.Decode(uuid[:], []byte(strings.ReplaceAll(o.p.guest.UUID, "-", "")))
	for id := range o.params.Channels {
		c, err := o.dial()
		if err != nil {
			return err
		}
		o.channels = append(o.channels, c)
		if _, err := c.Write(channelInit(uuid, byte(id))); err != nil {
			return fmt.Errorf("opening channel %d: %w", id, err)
		}
	}
	return nil
}

func (o *outgoing) closeChannels() {
	for _, c := range o.channels {
		c.Close()
	}
}

// breakingWriter closes its connection after left bytes.
type breakingWriter struct {
	conn net.Conn
	left int64
}

func (b *breakingWriter) Write(p []byte) (int, error) {
	if int64(len(p)) < b.left {
		n, err := b.conn.Write(p)
		b.left -= int64(n)
		return n, err
	}
	n, _ := b.conn.Write(p[:b.left])
	b.conn.Close()
	return n, errLegBroke
}
