package wan

import (
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// pingLen and pingEvery are those of an urgent message in the table: a
// hypervisor's return path is of this kind.
const (
	pingLen   = 200 // bytes
	pingEvery = 20 * time.Millisecond
)

// A pinger sends small messages and times their echoes.
type pinger struct {
	way io.ReadWriter

	mu   sync.Mutex // guards what follows
	sent []time.Time
	took []time.Duration // by number; 0 while it has not come back
}

func newPinger(way io.ReadWriter) *pinger {
	p := &pinger{way: way}
	go p.read()
	return p
}

// run sends for so long.
func (p *pinger) run(long time.Duration) error {
	end := time.Now().Add(long)
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for now := range tick.C {
		if now.After(end) {
			return nil
		}
		msg := make([]byte, pingLen)
		p.mu.Lock()
		binary.BigEndian.PutUint64(msg, uint64(len(p.sent)))
		p.sent, p.took = append(p.sent, time.Now()), append(p.took, 0)
		p.mu.Unlock()
		if _, err := p.way.Write(msg); err != nil {
			return err
		}
	}
	return nil
}

// read notes what comes back, until the way ends.
func (p *pinger) read() {
	msg := make([]byte, pingLen)
	for {
		if _, err := io.ReadFull(p.way, msg); err != nil {
			return
		}
		p.mu.Lock()
		if i := binary.BigEndian.Uint64(msg); i < uint64(len(p.sent)) {
			p.took[i] = time.Since(p.sent[i])
		}
		p.mu.Unlock()
	}
}

// report is the time that each took; of those that are still away, their age.
func (p *pinger) report() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]time.Duration, len(p.took))
	for i, d := range p.took {
		if all[i] = d; d == 0 {
			all[i] = time.Since(p.sent[i])
		}
	}
	return all
}
