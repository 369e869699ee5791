package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/tunnel"
)

// peers are the sites to be in touch with: those of the config, and those that
// have joined with a token, which are kept in a file so that a restart knows
// them. The config has the last word on addresses.
type peers struct {
	path string

	mu     sync.Mutex // guards what follows
	config []tunnel.Peer
	joined []tunnel.Peer
}

func openPeers(cfg config.Config) (*peers, error) {
	p := &peers{path: filepath.Join(cfg.Dir, "joined.json")}
	p.configure(cfg.Peers)
	b, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p.joined)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sites that have joined: %s: %w", p.path, err)
	}
	return p, nil
}

// configure takes the peers that the config has now.
func (p *peers) configure(from []config.Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config = nil
	for _, c := range from {
		peer := tunnel.Peer{Site: c.Site, Addrs: c.Address, Carrier: tunnel.Carrier(c.Carrier)}
		for _, w := range c.Paths {
			peer.Paths = append(peer.Paths, tunnel.Path{
				Name: w.Name, Source: w.Source, Addrs: w.Address, Rate: w.Rate.BytesPerSecond(), Cost: w.Cost,
			})
		}
		p.config = append(p.config, peer)
	}
}

// add remembers a site that has joined.
func (p *peers) add(peer tunnel.Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.joined = slices.DeleteFunc(p.joined, func(o tunnel.Peer) bool { return o.Site == peer.Site })
	p.joined = append(p.joined, peer)
	b, err := json.MarshalIndent(p.joined, "", "  ")
	if err != nil {
		return err
	}
	next := p.path + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, p.path)
}

// list returns all of them, those of the config first.
func (p *peers) list() []tunnel.Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.config)
	for _, j := range p.joined {
		if !slices.ContainsFunc(all, func(o tunnel.Peer) bool { return o.Site == j.Site }) {
			all = append(all, j)
		}
	}
	return all
}

func (p *peers) sites() []string {
	var names []string
	for _, peer := range p.list() {
		names = append(names, peer.Site)
	}
	return names
}
