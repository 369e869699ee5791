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
	"path/filepath"
	"strings"

	"github.com/longhaul-project/longhaul/l2ext"
)

// route calls the host_route command of a segment. Its arguments follow those
// that the operator gave: arrive or depart, segment, MAC, IP.
func (l *Layer2) route(ctx context.Context, what string, r l2ext.HostRoute) (left <-chan struct{}, err error) {
	l.mu.Lock()
	argv := l.hooks[r.Segment]
	l.mu.Unlock()
	if len(argv) == 0 {
		return nil, nil // it wants none any more
	}
	args := append(argv[1:len(argv):len(argv)], what, r.Segment, r.MAC.String(), r.IP.String())
	o := order{argv: append(argv[:1:1], args...), holding: routeHolding}
	err = o.run(ctx)
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(o.argv, " "), err, strings.TrimSpace(string(o.output)))
	}
	return o.left, nil
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
	Routes   []json.RawMessage   `json:"routes"`   // each a keptRoute, so that one that is harmed harms no other
}

type keptRoute struct {
	Segment string     `json:"segment"`
	MAC     string     `json:"mac"`
	IP      netip.Addr `json:"ip"`
}

// leftRoutes are the host routes that a gateway before this one has kept in dir. It notes their
// commands. What cannot be read is told of, also to operators, and what can be is used: a gateway that
// does not start for it would do more harm than routes that stay. A file of which something was not
// understood is set aside.
func (l *Layer2) leftRoutes(dir string) []l2ext.HostRoute {
	if dir == "" {
		return nil
	}
	l.routes = filepath.Join(dir, routesName)
	kept, routes, err := loadRoutes(l.routes)
	l.hooks = kept.Commands
	if err == nil {
		return routes
	}
	aside := l.routes + ".bad"
	if e := os.Rename(l.routes, aside); e != nil {
		aside, err = l.routes, errors.Join(err, e)
	} else { // this run need not change them, and the next has to know them as well
		err = errors.Join(err, l.keepRoutes(routes))
	}
	l.lostRoutes = fmt.Sprintf("host routes that an earlier gateway has left may stay: %v (%s)", err, aside)
	l.orders.Error("host routes that an earlier gateway has left are not all known, and may stay", "file", aside, "err", err)
	return routes
}

// loadRoutes reads the file. If there is none, it has no routes. With an error it returns
// what could be read.
func loadRoutes(path string) (kept keptRoutes, routes []l2ext.HostRoute, err error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return keptRoutes{Commands: map[string][]string{}}, nil, err
	}
	defer f.Close()
	return readRoutes(f)
}

// readRoutes leaves out what is no route, and returns the others with an error that names the first
// that is none.
func readRoutes(r io.Reader) (kept keptRoutes, routes []l2ext.HostRoute, err error) {
	if err = json.NewDecoder(io.LimitReader(r, maxRoutesFile)).Decode(&kept); err != nil {
		kept.Routes = nil // it may be half of them, which nobody can tell
	}
	if kept.Commands == nil {
		kept.Commands = make(map[string][]string)
	}
	bad := 0
	for _, raw := range kept.Routes {
		route, e := parseRoute(raw)
		if e == nil {
			routes = append(routes, route)
			continue
		}
		if bad++; bad == 1 {
			err = e
		}
	}
	if bad > 1 {
		err = fmt.Errorf("%w, and %d more like it", err, bad-1)
	}
	return kept, routes, err
}

func parseRoute(raw json.RawMessage) (r l2ext.HostRoute, err error) {
	var k keptRoute
	if err := json.Unmarshal(raw, &k); err != nil {
		return r, fmt.Errorf("%.200s is no host route: %w", raw, err)
	}
	mac, err := net.ParseMAC(k.MAC)
	if err != nil || len(mac) != len(l2ext.MAC{}) || !k.IP.IsValid() || k.Segment == "" {
		return r, fmt.Errorf("%.200s is no host route", raw)
	}
	return l2ext.HostRoute{Segment: k.Segment, MAC: l2ext.MAC(mac), IP: k.IP}, nil
}

// keepRoutes writes them down, so that not even a crash of the machine forgets them: some are
// a router's.
func (l *Layer2) keepRoutes(routes []l2ext.HostRoute) error {
	if l.routes == "" {
		return nil
	}
	kept := keptRoutes{Commands: make(map[string][]string), Routes: []json.RawMessage{}}
	l.mu.Lock()
	for _, r := range routes {
		kept.Commands[r.Segment] = l.hooks[r.Segment]
	}
	l.mu.Unlock()
	for _, r := range routes {
		raw, err := json.Marshal(keptRoute{Segment: r.Segment, MAC: r.MAC.String(), IP: r.IP})
		if err != nil {
			return err
		}
		kept.Routes = append(kept.Routes, raw)
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	if err := replaceFile(l.routes, b); err != nil {
		return fmt.Errorf("noting host routes: %w", err)
	}
	return nil
}

// replaceFile has a crash leave the old file or the new one, also that of the machine.
func replaceFile(path string, b []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ExamineRoutes looks at the host routes that an earlier gateway has left; nil if all is well.
func (l *Layer2) ExamineRoutes() []Check {
	if l.lostRoutes == "" {
		return nil
	}
	return []Check{{Name: "host routes", State: CheckFail, Detail: l.lostRoutes + "; look for routes to guests that are elsewhere, and start the gateway anew"}}
}
