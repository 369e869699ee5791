package hvtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
)

// errRelay is what a relay breaks its legs with.
var errRelay = errors.New("relay breaks the legs, as the test wished")

// A relay carries the bytes of a move from a source's leg to a sink, and
// back. It is the least that a gateway has to do: it dials the main channel
// first, and each channel only with its first bytes in hand.
type relay struct {
	uri  string
	sink gateway.Sink

	holdAt  int64         // stop reading the main channel after this many bytes; 0 is never
	held    chan struct{} // closed when it stopped
	release chan struct{} // close it to go on
	noShut  bool          // keep the end of the return path from the source
	cutAt   int64         // break all legs after this many bytes of the main channel; 0 is never

	ctx    context.Context
	cancel context.CancelCauseFunc
	ln     net.Listener
	wg     sync.WaitGroup
	dialed chan struct{} // closed when the main channel is through
}

// startRelay listens for a source. The test's end ends it.
func startRelay(t *testing.T, sink gateway.Sink) *relay {
	t.Helper()
	path := filepath.Join(t.TempDir(), "leg")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatalf("listening for the source: %v", err)
	}
	r := &relay{
		uri: "unix:" + path, sink: sink, ln: ln,
		held: make(chan struct{}), release: make(chan struct{}), dialed: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	context.AfterFunc(r.ctx, func() { ln.Close() })
	t.Cleanup(r.close)
	return r
}

// run accepts connections until close.
func (r *relay) run() {
	r.wg.Go(func() {
		for {
			conn, err := r.ln.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() {
				if err := r.carry(conn); err != nil {
					r.cancel(err) // one leg breaks: all do
				}
			})
		}
	})
}

// close breaks all legs and waits.
func (r *relay) close() {
	r.cancel(errRelay)
	r.wg.Wait()
}

// carry serves one connection of the source.
func (r *relay) carry(near net.Conn) error {
	defer near.Close()
	stop := context.AfterFunc(r.ctx, func() { near.Close() })
	defer stop()
	first := make([]byte, 4, multifdInit)
	if _, err := io.ReadFull(near, first); err != nil {
		return fmt.Errorf("reading the first bytes: %w", err)
	}
	main := binary.BigEndian.Uint32(first) != multifdMagic
	if !main {
		first = first[:multifdInit]
		if _, err := io.ReadFull(near, first[4:]); err != nil {
			return fmt.Errorf("reading a channel's first packet: %w", err)
		}
		select {
		case <-r.dialed:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
	far, err := r.sink.Dial(r.ctx)
	if err != nil {
		return fmt.Errorf("dialling the sink: %w", err)
	}
	defer far.Close()
	stopFar := context.AfterFunc(r.ctx, func() { far.Close() })
	defer stopFar()
	if _, err := far.Write(first); err != nil {
		return fmt.Errorf("writing the first bytes: %w", err)
	}
	if main {
		close(r.dialed)
	}
	return r.both(near, far, main)
}

// both copies both ways until both sides have ended.
func (r *relay) both(near, far net.Conn, main bool) error {
	var back error
	var wg sync.WaitGroup
	wg.Go(func() {
		back = r.copyBack(near, far)
		if back != nil {
			r.cancel(back)
		}
	})
	var src io.Reader = near
	if main {
		src = &gate{r: r, src: near}
	}
	err := copyHalf(far, src)
	if err != nil {
		r.cancel(err)
	}
	wg.Wait()
	return errors.Join(err, back)
}

// copyBack copies the return path; with noShut only until SHUT.
func (r *relay) copyBack(near, far net.Conn) error {
	for r.noShut {
		var h [4]byte
		if _, err := io.ReadFull(far, h[:]); err != nil {
			return err
		}
		kind, length := binary.BigEndian.Uint16(h[:]), binary.BigEndian.Uint16(h[2:])
		if kind == rpShut {
			<-r.ctx.Done()
			return context.Cause(r.ctx)
		}
		if _, err := near.Write(h[:]); err != nil {
			return err
		}
		if _, err := io.CopyN(near, far, int64(length)); err != nil {
			return err
		}
	}
	return copyHalf(near, far)
}

// copyHalf copies one direction and passes its end on.
func copyHalf(dst net.Conn, src io.Reader) error {
	if _, err := io.Copy(struct{ io.Writer }{dst}, struct{ io.Reader }{src}); err != nil {
		return err
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() // fails if the other side is gone already
	}
	return nil
}

// A gate holds or cuts the main channel where the test wants it.
type gate struct {
	r   *relay
	src io.Reader
	n   int64
}

func (g *gate) Read(p []byte) (int, error) {
	if g.r.holdAt > 0 && g.n >= g.r.holdAt {
		g.r.holdAt = 0
		close(g.r.held)
		select {
		case <-g.r.release:
		case <-g.r.ctx.Done():
			return 0, context.Cause(g.r.ctx)
		}
	}
	if g.r.cutAt > 0 && g.n >= g.r.cutAt {
		return 0, errRelay
	}
	n, err := g.src.Read(p)
	g.n += int64(n)
	return n, err
}
