package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
)

// routeTime bounds one call of the host_route command.
const routeTime = 10 * time.Second

// route calls the host_route command of a segment. Its arguments follow those
// that the operator gave: arrive or depart, segment, MAC, IP.
func (l *Layer2) route(ctx context.Context, what string, r l2ext.HostRoute) error {
	l.mu.Lock()
	argv := l.hooks[r.Segment]
	l.mu.Unlock()
	if len(argv) == 0 {
		return nil // it wants none any more
	}
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	args := append(argv[1:len(argv):len(argv)], what, r.Segment, r.MAC.String(), r.IP.String())
	out, err := exec.CommandContext(ctx, argv[0], args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(append(argv[:1:1], args...), " "), err, strings.TrimSpace(string(out[:min(len(out), 1024)])))
	}
	return nil
}

// Host routes outlive a gateway that dies, and its guests may be elsewhere when the next one
// comes up. Which there are is therefore kept in a file, with the commands that take them away:
// a segment may have left the config meanwhile.

// routesName is that file, in the state directory.
const routesName = "host-routes.json"

// maxRoutesFile is the most bytes that are read of it. A route has some 100, and a gateway
// l2ext.MaxMACs guests on a segment at most.
const maxRoutesFile = 64 << 20

// keptRoutes is what is in it.
type keptRoutes struct {
	Commands map[string][]string `json:"commands"` // host_route by segment
	Routes   []keptRoute         `json:"routes"`
}

type keptRoute struct {
	Segment string     `json:"segment"`
	MAC     string     `json:"mac"`
	IP      netip.Addr `json:"ip"`
}

// leftRoutes are the host routes that a gateway before this one has kept in dir. It notes their
// commands. A file that nobody can read is told of and replaced: a gateway that does not start
// for it would do more harm than routes that stay.
func (l *Layer2) leftRoutes(dir string) ([]l2ext.HostRoute, error) {
	if dir == "" {
		return nil, nil
	}
	l.routes = filepath.Join(dir, routesName)
	f, err := os.Open(l.routes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the list of host routes: %w", err)
	}
	defer f.Close()
	kept, routes, err := readRoutes(f)
	if err != nil {
		l.orders.Warn("host routes that an earlier run has left are not known; they stay", "file", l.routes, "err", err)
		return nil, nil
	}
	l.hooks = kept.Commands
	return routes, nil
}

func readRoutes(r io.Reader) (kept keptRoutes, routes []l2ext.HostRoute, err error) {
	if err := json.NewDecoder(io.LimitReader(r, maxRoutesFile)).Decode(&kept); err != nil {
		return kept, nil, err
	}
	if kept.Commands == nil {
		kept.Commands = make(map[string][]string)
	}
	for _, k := range kept.Routes {
		mac, err := net.ParseMAC(k.MAC)
		if err != nil || len(mac) != len(l2ext.MAC{}) || !k.IP.IsValid() || k.Segment == "" {
			return kept, nil, fmt.Errorf("%+v is no host route", k)
		}
		routes = append(routes, l2ext.HostRoute{Segment: k.Segment, MAC: l2ext.MAC(mac), IP: k.IP})
	}
	return kept, routes, nil
}

// keepRoutes writes them down. After a crash of the machine the file may be that of before: the
// routes, which are the kernel's or a router's, are then gone or taken away once more.
func (l *Layer2) keepRoutes(routes []l2ext.HostRoute) error {
	if l.routes == "" {
		return nil
	}
	kept := keptRoutes{Commands: make(map[string][]string), Routes: []keptRoute{}}
	l.mu.Lock()
	for _, r := range routes {
		kept.Routes = append(kept.Routes, keptRoute{Segment: r.Segment, MAC: r.MAC.String(), IP: r.IP})
		kept.Commands[r.Segment] = l.hooks[r.Segment]
	}
	l.mu.Unlock()
	b, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	next := l.routes + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("noting host routes: %w", err)
	}
	return os.Rename(next, l.routes)
}
