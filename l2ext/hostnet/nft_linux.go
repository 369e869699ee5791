package hostnet

import (
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/google/nftables"
)

// rulesDoor is the connection to nftables that stays open. A new one for each
// question would not do at a flip: when a connection ends, the kernel first
// waits for all that has been deleted to be really gone
// (nft_rcv_nl_event, net/netfilter/nf_tables_api.c), which takes 10 ms and more.
type rulesDoor struct {
	mu sync.Mutex // one user at a time; guards what follows
	c  *nftables.Conn
}

// withRules calls f with the connection. After an error there is another one: nobody
// knows what is still to be read from it.
func (n *Net) withRules(f func(c *nftables.Conn) error) (err error) {
	d := &n.rules
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.c == nil {
		options := []nftables.ConnOption{nftables.AsLasting()}
		if n.ns.IsOpen() {
			options = append(options, nftables.WithNetNSFd(int(n.ns)))
		}
		if d.c, err = nftables.New(options...); err != nil {
			return fmt.Errorf("opening nftables: %w", err)
		}
	}
	if err = f(d.c); err != nil {
		_ = d.c.CloseLasting()
		d.c = nil
	}
	return err
}

// named gives a set a number, by which rules of the same transaction may name it.
// The library's own are from a counter that all connections share without a lock.
// The kernel goes by the name first, so that two of one number are no harm.
func named(s *nftables.Set) *nftables.Set {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.Name)) // never fails
	s.ID = max(h.Sum32(), 1)
	return s
}

// closeRules ends the connection.
func (n *Net) closeRules() {
	d := &n.rules
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.c != nil {
		_ = d.c.CloseLasting()
		d.c = nil
	}
}
