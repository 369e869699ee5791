package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/client"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// linkPort is the one UDP port of a site.
const linkPort = 7447

// shareOfLine is the cap of the link as a share of the line: what an operator
// sets who knows the contract, so that the queue of the line stays empty.
const shareOfLine = 0.96

// startTime bounds how long a gateway takes to be ready and the link to come up.
const startTime = 20 * time.Second

// ends are the gateways of both sites.
type ends struct {
	lab   *lab.Lab
	rate  int64 // cap of the link in bits per second
	procs map[string]*lab.Process
	api   map[string]*client.Client
}

const configText = `site: %s
gateway: gw1
pki: %s
dir: %s
run_dir: %s
listen: ":%d"
peers:
  - site: %s
    address: ["%s:%d"]
link:
  rate: %dbit
hosts:
  - name: host-%s
    qmp_dir: %s
segments:
  - name: lan
    vni: 100
    bridge: %s
    sites: [%s]
log:
  level: debug
`

// startEnds founds a fleet and runs a gateway at each site.
func startEnds(ctx context.Context, l *lab.Lab, line lab.Link, binary string) (*ends, error) {
	e := &ends{
		lab: l, rate: int64(float64(line.Rate) * shareOfLine),
		procs: map[string]*lab.Process{}, api: map[string]*client.Client{},
	}
	pkiOf := func(s *lab.Site) string { return filepath.Join(s.Dir, "pki") }
	if err := pki.Init(pkiOf(l.A), "demo", "a", "gw1"); err != nil {
		return e, err
	}
	id, err := pki.Load(pkiOf(l.A))
	if err != nil {
		return e, err
	}
	if err := id.Provision(pkiOf(l.B), "b", "gw1"); err != nil {
		return e, err
	}
	for _, pair := range [][2]*lab.Site{{l.A, l.B}, {l.B, l.A}} {
		if err := e.start(ctx, pair[0], pair[1], pkiOf(pair[0]), binary); err != nil {
			return e, err
		}
	}
	return e, e.waitUp(ctx)
}

func (e *ends) start(ctx context.Context, s, other *lab.Site, pkiDir, binary string) error {
	run := filepath.Join(s.Dir, "run")
	text := fmt.Sprintf(configText, s.Name, pkiDir, filepath.Join(s.Dir, "state"), run, linkPort,
		other.Name, other.WAN, linkPort, e.rate, s.Name, s.QMPDir(), lab.Bridge, other.Name)
	p, err := s.StartGateway(ctx, binary, []byte(text))
	if err != nil {
		return err
	}
	e.procs[s.Name] = p
	e.api[s.Name] = client.New(filepath.Join(run, "api.sock"))
	return nil
}

// waitUp waits until both gateways serve, see each other, and have their
// segment.
func (e *ends) waitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, errors.New("the link does not come up"))
	defer cancel()
	for name, c := range e.api {
		for {
			why := e.notReady(ctx, c)
			if why == nil {
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-e.procs[name].Done():
				return fmt.Errorf("gateway of site %s has ended: %w", name, e.procs[name].Err())
			case <-ctx.Done():
				return fmt.Errorf("gateway of site %s: %w: %w", name, context.Cause(ctx), why)
			}
		}
	}
	return nil
}

func (e *ends) notReady(ctx context.Context, c *client.Client) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if len(st.Peers) == 0 || !st.Peers[0].Alive {
		return errors.New("the peer is not alive")
	}
	segments, err := c.Segments(ctx)
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return errors.New("the segment is not there")
	}
	if segments[0].Problem != "" {
		return errors.New("segment: " + segments[0].Problem)
	}
	return nil
}

// stop ends the gateways in an orderly way.
func (e *ends) stop(ctx context.Context) error {
	var errs []error
	for name, p := range e.procs {
		if err := p.Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("gateway of site %s: %w", name, err))
		}
	}
	for _, c := range e.api {
		c.Close()
	}
	return errors.Join(errs...)
}

// migrate moves the VM and returns the job as it ended.
func (e *ends) migrate(ctx context.Context, from, to string, show func(gateway.JobEvent)) (gateway.Job, error) {
	c := e.api[from]
	j, err := c.Migrate(ctx, gateway.MigrateRequest{VM: vmName, To: to})
	if err != nil {
		return j, err
	}
	err = c.WatchJob(ctx, j.ID, func(ev gateway.JobEvent) error {
		j = ev.Job
		if show != nil {
			show(ev)
		}
		return nil
	})
	if err != nil {
		return j, fmt.Errorf("watching the move: %w", err)
	}
	return j, nil
}

// findGateway finds longhauld next to this program, or in PATH.
func findGateway(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	if self, err := os.Executable(); err == nil {
		near := filepath.Join(filepath.Dir(self), "longhauld")
		if st, err := os.Stat(near); err == nil && st.Mode().IsRegular() {
			return near, nil
		}
	}
	path, err := exec.LookPath("longhauld")
	if err != nil {
		return "", errors.New("longhauld is neither next to this program nor in PATH; make build makes both")
	}
	return filepath.Abs(path)
}
