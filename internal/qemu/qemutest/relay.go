package qemutest

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// Relay captures a move between two QEMUs with a return path: all connections,
// in both directions.
func Relay(tb testing.TB, c Config) *Capture {
	tb.Helper()
	return slower(tb, c, move)
}

// move makes one attempt at Relay. It returns nil if the migration ends before
// it has made its passes.
func move(tb testing.TB, c Config) *Capture {
	tb.Helper()
	dir := tempDir(tb)
	dst := start(tb, dir, "destination", c, true)
	src := start(tb, dir, "source", c, false)
	caps := map[string]bool{
		"events": true, "return-path": true, "xbzrle": c.XBZRLE, "compress": c.Compress, "multifd": c.Multifd > 0,
		"postcopy-ram": c.Postcopy, "postcopy-preempt": c.Preempt,
	}
	dst.configure(c, caps)
	src.configure(c, caps)

	r := newRelay(tb, dir)
	dst.do("migrate-incoming", map[string]any{"uri": "unix:" + r.dst})
	src.do("migrate", map[string]any{"uri": "unix:" + r.src})
	if c.Passes > 0 && !src.waitPass(c.Passes) {
		src.quit()
		dst.quit()
		r.close()
		return nil
	}
	if c.Postcopy {
		src.do("migrate-start-postcopy", nil)
		src.waitStatus("postcopy-active")
	}
	if c.Recover {
		r.recover(src, dst)
	}
	src.letGo()
	src.waitStatus("completed")
	dst.waitStatus("completed")
	got := src.stats()
	src.quit()
	dst.quit()
	got.Channels = r.close()
	return got
}

// recover breaks all connections and lets both ends go on over new ones.
func (r *relay) recover(src, dst *vm) {
	r.tb.Helper()
	// Before it runs, the destination cannot be recovered.
	dst.wait("RESUME", func(e event) bool { return e.Event == "RESUME" })
	r.abort()
	src.waitStatus("postcopy-paused")
	dst.waitStatus("postcopy-paused")
	dst.do("migrate-recover", map[string]any{"uri": "unix:" + r.dst + "2"})
	r.redirect(r.dst + "2")
	src.do("migrate", map[string]any{"uri": "unix:" + r.src, "resume": true})
	src.waitStatus("postcopy-active")
}

// relay stands between two QEMUs and keeps what passes.
type relay struct {
	tb       testing.TB
	src, dst string // paths of sockets
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	target   string
	conns    []net.Conn
	channels []*capturing
}

// capturing is a channel that is still open.
type capturing struct{ forward, back lockedBuffer }

func newRelay(tb testing.TB, dir string) *relay {
	tb.Helper()
	r := &relay{tb: tb, src: filepath.Join(dir, "src.sock"), dst: filepath.Join(dir, "dst.sock")}
	r.target = r.dst
	l, err := net.Listen("unix", r.src)
	if err != nil {
		tb.Fatal(err)
	}
	r.listener = l
	r.wg.Go(r.accept)
	tb.Cleanup(func() { r.abort(); r.close() })
	return r
}

// accept connects to the destination in the order in which the source has
// connected: QEMU up to 7.2 takes the first for the main channel.
func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		target := r.target
		r.mu.Unlock()
		out, err := net.Dial("unix", target)
		if err != nil {
			in.Close()
			r.tb.Errorf("relay: %v", err)
			return
		}
		c := &capturing{}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.channels = append(r.channels, c)
		r.mu.Unlock()
		r.wg.Go(func() { pipe(out, in, &c.forward) })
		r.wg.Go(func() { pipe(in, out, &c.back) })
	}
}

// pipe copies from one connection to another until either ends.
func pipe(to, from net.Conn, keep io.Writer) {
	io.Copy(io.MultiWriter(to, keep), from) // a reset is as good an end as any here
	to.(*net.UnixConn).CloseWrite()
}

func (r *relay) redirect(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// abort closes all connections.
func (r *relay) abort() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
}

// close ends the relay when the connections have ended, and returns what
// passed.
func (r *relay) close() []Channel {
	if err := r.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		r.tb.Errorf("relay: %v", err)
	}
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []Channel
	for _, c := range r.channels {
		got = append(got, Channel{Forward: c.forward.Bytes(), Back: c.back.Bytes()})
	}
	return got
}
