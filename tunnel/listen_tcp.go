package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
)

// Bounds of what strangers can make us do by TCP.
const (
	// maxHands bounds connections that have not said hello; a link needs 18
	// when it comes up.
	maxHands = 256
	// maxHandsFrom bounds those of one address, so that one stranger does not
	// take all.
	maxHandsFrom = 64
)

// hands counts TCP connections in hand by address.
type hands struct {
	mu  sync.Mutex // guards what follows
	all int
	by  map[string]int
}

func (h *hands) enter(a net.Addr) (leave func(), ok bool) {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		host = a.String()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxHands || h.by[host] >= maxHandsFrom {
		return nil, false
	}
	if h.by == nil {
		h.by = make(map[string]int)
	}
	h.all++
	h.by[host]++
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all--
		if h.by[host]--; h.by[host] == 0 {
			delete(h.by, host)
		}
	}), true
}

// listenTCP accepts connections by TCP until ctx ends, on the port of the link.
// Where it cannot, links go by QUIC alone, unless the config wants TCP.
func (n *Node) listenTCP(ctx context.Context) error {
	s, ok := n.cfg.Sockets.(Streams)
	if n.cfg.Listen == "" || n.cfg.Carrier == QUIC || !ok {
		<-ctx.Done()
		return nil
	}
	ln, err := s.ListenStream(n.cfg.Listen)
	if err != nil && n.cfg.Carrier == TCP {
		return fmt.Errorf("tunnel: listening on %s by TCP: %w", n.cfg.Listen, err)
	}
	if err != nil {
		n.log.Warn("cannot listen by TCP; links go by QUIC alone", "peer", n.cfg.Listen, "err", err)
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	n.log.Info("listening by TCP", "peer", ln.Addr().String())
	var wg sync.WaitGroup
	defer wg.Wait()
	var h hands
	for {
		raw, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("tunnel: socket of %s by TCP has failed: %w", n.cfg.Listen, err)
		}
		leave, ok := h.enter(raw.RemoteAddr())
		if !ok {
			n.refused.Add(1)
			_ = raw.Close()
			continue
		}
		wg.Go(func() {
			defer leave()
			n.welcomeTCP(ctx, raw, leave)
		})
	}
}

// welcomeTCP serves an accepted connection to its end. It calls greeted when the
// connection is a stranger's no more.
func (n *Node) welcomeTCP(ctx context.Context, raw net.Conn, greeted func()) {
	below := shape(ctx, raw)
	shake, cancel := context.WithTimeout(ctx, quicHandshake)
	defer cancel()
	c := tls.Server(below, n.cfg.ServerTLS)
	if err := c.HandshakeContext(shake); err != nil {
		n.log.Debug("handshake by TCP", "peer", raw.RemoteAddr().String(), "err", err)
		_ = below.Close()
		return
	}
	conn := overTCP(c, below, false)
	n.welcome(ctx, conn, func(m *meter) (func(net.Addr), func()) {
		greeted()
		below.meter.Store(m)
		return nil, func() {}
	})
	conn.Close(uint64(codeShutdown), "")
}
