package pair

import (
	"context"
	"errors"
	"net"
	"path/filepath"

	"github.com/longhaul-project/longhaul/bench/lab"
)

// QuitGuests ends the guests that have come to a site: they outlive its
// gateway. It is for when the gateways have been stopped, because a monitor
// serves one client.
func (p *Pair) QuitGuests(ctx context.Context) error {
	var errs []error
	for _, s := range []*lab.Site{p.lab.A, p.lab.B} {
		monitors, err := filepath.Glob(filepath.Join(runDir(s), "host-"+s.Name, "*", "qmp"))
		errs = append(errs, err)
		for _, path := range monitors {
			errs = append(errs, quit(ctx, path))
		}
	}
	return errors.Join(errs...)
}

// quit ends a QEMU. A socket behind which nobody listens is a process that has
// ended before.
func quit(ctx context.Context, path string) error {
	if !answers(ctx, path) {
		return nil
	}
	m, err := lab.OpenMonitor(ctx, path)
	if err != nil {
		return err
	}
	m.Do(ctx, "quit", nil, nil) // its answer may be lost with the process
	return m.Close()
}

func answers(ctx context.Context, path string) bool {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
