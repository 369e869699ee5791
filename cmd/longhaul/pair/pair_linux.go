package pair

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/client"
	"github.com/longhaul-project/longhaul/tunnel/pki"
)

// LinkPort is the one UDP port of a site.
const LinkPort = 7447

// StartTime bounds how long a gateway takes to be ready and the link to come up.
const StartTime = 20 * time.Second

// Options of a pair.
type Options struct {
	Binary string // path of longhauld

	// Rate caps the link, in bits per second. Zero is no cap.
	Rate int64

	// Carrier of the link. Empty is the gateway's default.
	Carrier string

	// Segment is more YAML for the segment, such as "mode: direct". Empty is none.
	Segment string

	// Extra is more YAML for the config of a site. May be nil.
	Extra func(s *lab.Site) string

	// Third is one more site, which has a gateway as well. May be nil.
	Third *lab.Site

	// More is more segments of a site that has others: YAML, each line with two spaces before it.
	// May be nil.
	More func(others string) string
}

// Pair is the gateways of both sites, and of the third one if there is one.
type Pair struct {
	Options
	lab   *lab.Lab
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
%slink:
  rate: %dbit
  carrier: %q
hosts:
  - name: host-%s
    qmp_dir: %s
segments:
  - name: lan
    vni: 100
    bridge: %s
    sites: [%s]
%s%slog:
  level: debug
`

// Start founds a fleet, runs a gateway at each site, and waits until they see
// each other. When it fails, what has been started is in the pair.
func Start(ctx context.Context, l *lab.Lab, o Options) (*Pair, error) {
	p := &Pair{Options: o, lab: l, procs: map[string]*lab.Process{}, api: map[string]*client.Client{}}
	if err := pki.Init(pkiDir(l.A), "lab", "a", "gw1"); err != nil {
		return p, err
	}
	id, err := pki.Load(pkiDir(l.A))
	if err != nil {
		return p, err
	}
	for _, s := range p.sites()[1:] {
		if err := id.Provision(pkiDir(s), s.Name, "gw1"); err != nil {
			return p, err
		}
	}
	for _, s := range p.sites() {
		p.api[s.Name] = client.New(p.Socket(s))
		if err := p.Run(ctx, s); err != nil {
			return p, err
		}
	}
	return p, p.WaitUp(ctx)
}

func pkiDir(s *lab.Site) string { return filepath.Join(s.Dir, "pki") }

func runDir(s *lab.Site) string { return filepath.Join(s.Dir, "run") }

// Socket is where the gateway of a site serves its API.
func (p *Pair) Socket(s *lab.Site) string { return filepath.Join(runDir(s), "api.sock") }

// API of the gateway of a site.
func (p *Pair) API(s *lab.Site) *client.Client { return p.api[s.Name] }

// Process of the gateway of a site: the last that was run.
func (p *Pair) Process(s *lab.Site) *lab.Process { return p.procs[s.Name] }

// sites are all that have a gateway, site a first.
func (p *Pair) sites() []*lab.Site {
	if p.Third == nil {
		return []*lab.Site{p.lab.A, p.lab.B}
	}
	return []*lab.Site{p.lab.A, p.lab.B, p.Third}
}

// peers of a site: the config's text, and their names.
func (p *Pair) peers(s *lab.Site) (text, names string) {
	var all []string
	for _, o := range p.sites() {
		if o != s {
			text += fmt.Sprintf("  - site: %s\n    address: [\"%s:%d\"]\n", o.Name, s.Address(o), LinkPort)
			all = append(all, o.Name)
		}
	}
	return text, strings.Join(all, ", ")
}

// Config of a site, as it is now.
func (p *Pair) Config(s *lab.Site) []byte {
	peers, others := p.peers(s)
	segment := ""
	for line := range strings.Lines(p.Segment) {
		segment += "    " + strings.TrimSpace(line) + "\n"
	}
	more := ""
	if p.More != nil {
		more = p.More(others)
	}
	text := fmt.Sprintf(configText, s.Name, pkiDir(s), filepath.Join(s.Dir, "state"), runDir(s), LinkPort,
		peers, p.Rate, p.Carrier, s.Name, s.QMPDir(), lab.Bridge, others, segment, more)
	if p.Extra != nil {
		text += p.Extra(s)
	}
	return []byte(text)
}

// Run runs the gateway of a site, for the first time or again.
func (p *Pair) Run(ctx context.Context, s *lab.Site) error {
	proc, err := s.StartGateway(ctx, p.Binary, p.Config(s))
	if err != nil {
		return err
	}
	p.procs[s.Name] = proc
	return nil
}

// lookEvery is how often WaitUp asks.
const lookEvery = 20 * time.Millisecond

// WaitUp waits until all gateways serve, see each other, and have their
// segment.
func (p *Pair) WaitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, StartTime, errors.New("the link does not come up"))
	defer cancel()
	for name, c := range p.api {
		for {
			why := notReady(ctx, c)
			if why == nil {
				break
			}
			select {
			case <-time.After(lookEvery):
			case <-p.procs[name].Done():
				return fmt.Errorf("gateway of site %s has ended: %w", name, p.procs[name].Err())
			case <-ctx.Done():
				return fmt.Errorf("gateway of site %s: %w: %w", name, context.Cause(ctx), why)
			}
		}
	}
	return nil
}

func notReady(ctx context.Context, c *client.Client) error {
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if len(st.Peers) == 0 {
		return errors.New("there is no peer")
	}
	for _, peer := range st.Peers {
		if !peer.Alive {
			return fmt.Errorf("peer %s is not alive", peer.Site)
		}
	}
	segments, err := c.Segments(ctx)
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return errors.New("the segment is not there")
	}
	for _, s := range segments {
		if s.Problem != "" {
			return errors.New("segment " + s.Name + ": " + s.Problem)
		}
	}
	return nil
}

// Stop ends the gateways in an orderly way, until ctx ends.
func (p *Pair) Stop(ctx context.Context) error {
	var errs []error
	for name, proc := range p.procs {
		if err := proc.Stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("gateway of site %s: %w", name, err))
		}
	}
	for _, c := range p.api {
		c.Close()
	}
	return errors.Join(errs...)
}

// Migrate moves a VM and returns the job as it ended. show, which may be nil,
// hears of every change.
func (p *Pair) Migrate(ctx context.Context, from *lab.Site, req gateway.MigrateRequest, show func(gateway.JobEvent)) (gateway.Job, error) {
	c := p.API(from)
	j, err := c.Migrate(ctx, req)
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

// FindGateway finds longhauld next to this program, or in PATH. A path that is
// given is taken as it is.
func FindGateway(given string) (string, error) {
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
