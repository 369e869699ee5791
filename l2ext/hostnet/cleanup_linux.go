package hostnet

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/nftables"
)

// Cleanup removes from this machine all that a gateway, now dead, may have
// left. A bridge of ours into which something is plugged stays, and is named in
// the log: VMs may be using it. Nothing is touched while a gateway runs.
func Cleanup(ctx context.Context, log *slog.Logger) error {
	return CleanupIn(ctx, Config{Logger: log})
}

// CleanupIn is Cleanup in the namespace of a Config.
func CleanupIn(ctx context.Context, cfg Config) error {
	n, err := New(cfg)
	if err != nil {
		return err
	}
	defer n.Close()
	links, err := n.nl.LinkList()
	if err != nil {
		return fmt.Errorf("listing devices: %w", err)
	}
	for _, l := range links {
		if a := l.Attrs(); a.Alias == carrierMark { // the kernel removes it with the process that has it open
			return fmt.Errorf("a gateway is running, %s is its device: stop it first", a.Name)
		}
	}
	for _, l := range links {
		a := l.Attrs()
		if !strings.HasPrefix(a.Alias, mark) || strings.HasPrefix(a.Alias, bridgeMark) || a.Alias == mutedMark {
			continue
		}
		n.forgetNeighbours(l)
		if err := n.nl.LinkDel(l); err != nil && !notFound(err) { // a VXLAN device may have gone with its TUN
			return fmt.Errorf("removing device %s: %w", a.Name, err)
		}
		n.log.Info("removed", "device", a.Name)
	}
	if err := n.unmuteLeft(); err != nil {
		return err
	}
	if err := n.removeTables(); err != nil {
		return err
	}
	inUse, err := n.removeBridges(ctx, nil)
	for _, name := range inUse {
		n.log.Warn("bridge stays: something is plugged into it", "bridge", name)
	}
	return err
}

// removeTables removes the tables of all gateways of this namespace.
func (n *Net) removeTables() error {
	c, err := n.nft()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyNetdev, nftables.TableFamilyINet} {
		tables, err := c.ListTablesOfFamily(family)
		if err != nil {
			return nil // a kernel without nftables has no tables of ours
		}
		for _, t := range tables {
			if strings.HasPrefix(t.Name, tablePrefix) {
				c.DelTable(t)
				n.log.Info("removed", "table", t.Name)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing tables of nftables: %w", err)
	}
	return nil
}
