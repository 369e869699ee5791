package hostnet

import (
	"errors"
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
		if d.c, err = nftables.New(append(n.nftOptions(), nftables.AsLasting())...); err != nil {
			return fmt.Errorf("opening nftables: %w", err)
		}
	}
	if err = f(d.c); err != nil {
		_ = d.c.CloseLasting()
		d.c = nil
	}
	return err
}

// nft opens a connection for one transaction.
func (n *Net) nft() (*nftables.Conn, error) { return nftables.New(n.nftOptions()...) }

func (n *Net) nftOptions() []nftables.ConnOption {
	options := []nftables.ConnOption{nftables.WithSockOptions(roomForTransaction)}
	if n.ns.IsOpen() {
		options = append(options, nftables.WithNetNSFd(int(n.ns)))
	}
	return options
}

// maxTransaction bounds what of one transaction may wait in a socket, in bytes, each way: it
// goes to the kernel in one piece, and the kernel has answered each rule, and told it
// again, before the first answer is read. The default of 208 KiB is for one segment in mode
// direct, ten in others, or the MACs of five thousand hosts. It is memory only while
// it is used: some 150 KiB for a segment in mode direct.
const maxTransaction = 64 << 20

// roomForTransaction is a nftables.SockOption. Without CAP_NET_ADMIN the kernel grants less
// and there are no rules anyway.
func roomForTransaction[Conn interface {
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}](c Conn) error {
	return errors.Join(c.SetReadBuffer(maxTransaction), c.SetWriteBuffer(maxTransaction))
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
