package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/gateway"
)

const (
	vmName   = "demo-vm"
	vmMAC    = "52:54:00:10:00:01" // of both guests: the client knows one machine
	diskSize = 16 << 20            // bytes

	lanMTU   = 1500 // Longhaul's segments carry full frames
	vxlanMTU = 1450 // what fits a VXLAN over a WAN of 1500

	// shareOfLine is the cap of the link as a share of the line: what an
	// operator sets who knows the contract, so that the queue of the line
	// stays empty.
	shareOfLine = 0.96

	// patience after which plain QEMU is permitted a longer downtime, because
	// it does not converge: what an operator would do.
	patience = 90 * time.Second

	// settleTime is how long the probes run on after a move, so that what it
	// has broken shows.
	settleTime = 2 * time.Second
)

// runner is one demo.
type runner struct {
	o   Options
	doc Document
	lab *lab.Lab
	img guest.Image

	sockets [2]string // of the gateways' APIs, at a and at b
}

// Run does the whole demo and removes everything that it has made.
func Run(ctx context.Context, o Options) error {
	r := &runner{o: o}
	if r.o.Dirty == 0 {
		r.o.Dirty = DefaultDirty
	}
	return r.run(ctx, time.Now())
}

// report writes what the demo has found.
func (r *runner) report(took time.Duration) (err error) {
	r.doc.Took = ms(took)
	r.doc.judge(r.o.Moves)
	if r.o.JSON {
		e := json.NewEncoder(r.o.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(r.doc)
	} else {
		r.summary()
	}
	if err == nil && !r.doc.OK {
		err = fmt.Errorf("the demo found problems: %s", strings.Join(r.doc.Problems, "; "))
	}
	return err
}

func (r *runner) say(format string, args ...any) { fmt.Fprintf(r.o.Stderr, format+"\n", args...) }

func (r *runner) run(ctx context.Context, began time.Time) (err error) {
	if err := lab.Check(); err != nil {
		return fmt.Errorf("the demo cannot run here: %w", err)
	}
	if err := lab.Cleanup(); err != nil { // what a crash has left is in nobody's way
		r.say("removing what an earlier demo has left: %v", err)
	}
	binary, err := pair.FindGateway(r.o.Gateway)
	if err != nil {
		return err
	}
	if r.img, err = guest.Build(ctx); err != nil {
		return fmt.Errorf("making the guest: %w", err)
	}
	r.lab, err = lab.New(ctx, lab.Options{Link: r.o.Link, Seed: 1, Emulator: r.o.Emulator, Congestion: cmp.Or(r.o.TCP, "cubic")})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, r.lab.Close())
	}()
	r.doc.Link = linkOf(r.o.Link)
	r.say("two sites, a and b, and a WAN between them: %s", r.o.Link.String())
	for _, part := range r.parts(binary) {
		if err := part(ctx); err != nil {
			return err
		}
	}
	err = r.report(time.Since(began))
	if r.o.Keep {
		r.say("\n%s\ngateways: longhaul --socket %s status     (and %s)\nThe lab stays up until Ctrl-C.", r.lab.Hint(), r.sockets[0], r.sockets[1])
		<-ctx.Done()
	}
	return err
}

// parts of the demo, in their order. Longhaul's is the last if the lab stays
// up: its gateways and its guest stay then, and there can be one guest.
func (r *runner) parts(binary string) []func(context.Context) error {
	ours := func(ctx context.Context) error {
		if err := r.byLonghaul(ctx, binary); err != nil {
			return fmt.Errorf("the move by Longhaul: %w", err)
		}
		return nil
	}
	plain := func(ctx context.Context) error {
		if err := r.byPlain(ctx); err != nil {
			return fmt.Errorf("the move by plain QEMU: %w", err)
		}
		return nil
	}
	switch {
	case !r.o.Plain:
		return []func(context.Context) error{ours}
	case r.o.Keep:
		return []func(context.Context) error{plain, ours}
	}
	return []func(context.Context) error{ours, plain}
}

// byLonghaul moves a guest through a pair of gateways, back and forth.
func (r *runner) byLonghaul(ctx context.Context, binary string) error {
	gateways, err := pair.Start(ctx, r.lab, pair.Options{Binary: binary, Rate: int64(float64(r.o.Link.Rate) * shareOfLine)})
	defer func() {
		if !r.o.Keep {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), pair.StartTime)
			defer cancel()
			if e := errors.Join(gateways.Stop(stop), gateways.QuitGuests(stop)); e != nil {
				r.say("%v", e)
			}
		}
	}()
	if err != nil {
		return err
	}
	r.sockets = [2]string{gateways.Socket(r.lab.A), gateways.Socket(r.lab.B)}
	if err := r.showGateways(ctx, gateways); err != nil {
		return err
	}
	if err := r.lab.B.Tap(vmName, lanMTU); err != nil { // as a site's hook does (config: before)
		return err
	}
	g, err := r.boot(ctx, vmName, lanMTU)
	if err != nil {
		return err
	}
	defer g.close()
	p, err := startProbes(ctx, r.lab)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := r.showServing(ctx, p); err != nil {
		return err
	}
	for n := range r.o.Moves {
		from, to := r.lab.A, r.lab.B
		if n%2 == 1 {
			from, to = to, from
		}
		if err := r.moveOnce(ctx, gateways, from, to); err != nil {
			return err
		}
		if n == 0 {
			if err := r.judgeFirst(ctx, g, p); err != nil {
				return err
			}
		}
		if err := r.measureDrift(ctx, gateways, n); err != nil {
			return err
		}
	}
	return r.judgeAll(ctx, g, p)
}

// showGateways shows what longhaul status would.
func (r *runner) showGateways(ctx context.Context, g *pair.Pair) error {
	for _, s := range []*lab.Site{r.lab.A, r.lab.B} {
		st, err := g.API(s).Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range st.Peers {
			r.say("gateway %s/%s: site %s is %s, RTT %.0f ms, cap %d Mbit/s; segment lan spans both sites",
				st.Site, st.Gateway, p.Site, either(p.Alive, "alive", "away: "+p.Why), p.RTT, p.Rate/1_000_000)
		}
	}
	return nil
}

// serveTime is how long the guest is watched before it moves.
const serveTime = time.Second

// showServing shows that a third host is being served.
func (r *runner) showServing(ctx context.Context, p *probes) error {
	select {
	case <-time.After(serveTime):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	pings, session := p.report()
	r.say("a third host pings it every %d ms (%d sent, %d lost, %.1f ms) and holds a TCP session to it (%d ticks, %d echoes)",
		pingEvery, pings.Sent, pings.Lost, float64(pings.RTT.Microseconds())/1000, session.Ticks, session.Echoes)
	if session.Ticks == 0 || pings.Sent == pings.Lost {
		return errors.New("the guest does not serve the third host")
	}
	return nil
}

// moveOnce is one move by Longhaul, noted in the document.
func (r *runner) moveOnce(ctx context.Context, gateways *pair.Pair, from, to *lab.Site) error {
	r.say("moving %s from %s to %s", vmName, from.Name, to.Name)
	before := r.lab.Wire(nil)
	began := time.Now()
	j, err := gateways.Migrate(ctx, from, gateway.MigrateRequest{VM: vmName, To: to.Name}, r.o.Show)
	if r.o.Done != nil {
		r.o.Done()
	}
	if err != nil {
		return err
	}
	m := Move{From: from.Name, To: to.Name, State: string(j.State), Error: j.Error, Total: ms(time.Since(began)), Wire: r.lab.Wire(nil).Bytes - before.Bytes}
	if rep := j.Report; rep != nil {
		m.Downtime = ms(rep.ResumedAt.Sub(rep.StoppedAt)) // one machine, one clock
		m.Logical, m.Rounds, m.Reduction = rep.LogicalBytes, rep.Rounds, rep.Reduction
		m.Pages, m.Zero, m.Refs, m.Deltas = rep.Pages, rep.ZeroPages, rep.Refs, rep.Deltas
		m.Network = rep.Network
	}
	r.doc.Moves = append(r.doc.Moves, m)
	if j.State != gateway.JobDone {
		return fmt.Errorf("from %s to %s: %s: %s", from.Name, to.Name, j.State, j.Error)
	}
	r.say("moved in %.1f s, the VM stood still for %d ms", float64(m.Total)/1000, m.Downtime)
	return nil
}

// judgeFirst writes what the first move did to the guest and its clients.
func (r *runner) judgeFirst(ctx context.Context, g *guestAt, p *probes) error {
	f, err := r.figures(ctx, g, p)
	if err != nil {
		return err
	}
	m := r.doc.Moves[0]
	f.Total, f.Downtime, f.Logical, f.Wire, f.Rounds = m.Total, m.Downtime, m.Logical, m.Wire, m.Rounds
	r.doc.Longhaul = f
	return nil
}

// judgeAll looks at the guest and its clients again after the last move.
func (r *runner) judgeAll(ctx context.Context, g *guestAt, p *probes) error {
	if r.o.Moves == 1 {
		return nil
	}
	f, err := r.figures(ctx, g, p)
	if err != nil {
		return err
	}
	l := r.doc.Longhaul
	l.PagesWrong += f.PagesWrong
	l.BlocksWrong += f.BlocksWrong
	l.ForeignBeats = f.ForeignBeats
	l.PagesVerified += f.PagesVerified
	l.SessionAlive = l.SessionAlive && f.SessionAlive
	l.SameIP, l.SameMAC = l.SameIP && f.SameIP, l.SameMAC && f.SameMAC
	l.PingsSent, l.PingsLost, l.LongestGap, l.SessionGap = f.PingsSent, f.PingsLost, f.LongestGap, f.SessionGap
	return nil
}

// figures asks the guest and the probes how it is.
func (r *runner) figures(ctx context.Context, g *guestAt, p *probes) (*Figures, error) {
	select {
	case <-time.After(settleTime):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	pings, session := p.report()
	r.say("checking every page")
	v, err := g.ask.Verify(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking the guest to check itself: %w", err)
	}
	st, err := g.ask.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking the guest: %w", err)
	}
	mac, err := r.lab.Client.MAC(lab.GuestIP)
	if err != nil {
		return nil, err
	}
	return &Figures{
		LongestGap: ms(pings.Longest.For), PingsSent: pings.Sent, PingsLost: pings.Lost,
		SessionAlive: session.Alive && session.Longest.For < patience, SessionGap: ms(session.Longest.For),
		SameIP: pings.Sent > pings.Lost+pings.Waiting, SameMAC: mac == g.vm.HardwareAddr(),
		PagesVerified: v.PagesVerified, PagesWrong: v.PagesWrong + v.FilesWrong + v.Journal, BlocksWrong: v.BlocksWrong,
		ForeignBeats: int64(st.Foreign),
	}, nil
}

// byPlain does the same move without Longhaul: QEMU's own migration over TCP,
// on a fresh guest of the same content that does the same work.
func (r *runner) byPlain(ctx context.Context) (err error) {
	r.say("\nthe same move by plain QEMU over TCP on the same WAN")
	if err := r.lab.Stretch(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.lab.Unstretch()) }()
	g, err := r.boot(ctx, "plain-vm", vxlanMTU)
	if err != nil {
		return err
	}
	defer g.close()
	p, err := startProbes(ctx, r.lab)
	if err != nil {
		return err
	}
	defer p.stop()
	last := time.Now()
	vm, rep, err := r.lab.PlainMove(ctx, lab.PlainOptions{
		VM: g.vm, From: r.lab.A, To: r.lab.B, Patience: patience,
		Progress: func(m lab.Migration) {
			if time.Since(last) > 5*time.Second {
				last = time.Now()
				r.say("  plain QEMU: round %d, %d of %d MiB left", m.RAM.Rounds, m.RAM.Remaining>>20, m.RAM.Total>>20)
			}
		},
	})
	if err != nil {
		return err
	}
	g.vm = vm
	f, err := r.figures(ctx, g, p)
	if err != nil {
		return err
	}
	f.Total, f.Downtime, f.Logical, f.Wire, f.Rounds = ms(rep.Total), ms(rep.Downtime), rep.Logical, rep.Wire, rep.Rounds
	f.Relaxed, f.TCP = rep.Relaxed, rep.TCP
	r.doc.Plain = f
	return nil
}

// guestAt is a guest with its control connection.
type guestAt struct {
	vm  *guest.VM
	ask *guest.Client
}

func (g *guestAt) close() {
	g.ask.Close()
	g.vm.Kill()
}

// boot starts the guest at site a and lets it work.
func (r *runner) boot(ctx context.Context, name string, mtu int) (*guestAt, error) {
	accel := guest.Accel(ctx, r.img)
	disk, err := r.lab.NewDisk(name, diskSize)
	if err != nil {
		return nil, err
	}
	vm, err := r.lab.A.StartGuest(ctx, guest.Options{
		Name: name, Image: r.img, Memory: r.o.Memory, Accel: accel, Disk: disk, Seed: 7, MTU: mtu, MAC: vmMAC,
		IP: netip.MustParsePrefix(lab.GuestIP + "/24"),
	})
	if err != nil {
		return nil, err
	}
	if err := vm.WaitReady(ctx); err != nil {
		vm.Kill()
		return nil, err
	}
	ask, err := r.lab.Control(ctx, lab.GuestIP)
	if err != nil {
		vm.Kill()
		return nil, err
	}
	g := &guestAt{vm, ask}
	if err := ask.SetDirty(ctx, control.Dirty{Rate: r.o.Dirty, Hot: 2000, Sparse: 75, Disk: 20}); err != nil {
		g.close()
		return nil, err
	}
	r.doc.VM = VM{Name: vmName, Memory: r.o.Memory, IP: lab.GuestIP, MAC: vm.HardwareAddr(), Accel: accel, Dirty: r.o.Dirty}
	r.say("guest %s runs at a (%s, %d MiB, %s), rewrites %d pages a second and serves %s", name, accel, r.o.Memory>>20, vm.HardwareAddr(), r.o.Dirty, lab.GuestIP)
	return g, nil
}

// probes are what a third host does with the guest all the time.
type probes struct {
	pinger  *lab.Pinger
	session *lab.TCPSession
	cancel  context.CancelFunc
	done    chan struct{} // receives one for each probe that has ended
}

func startProbes(ctx context.Context, l *lab.Lab) (*probes, error) {
	pinger, err := l.Client.Pinger(lab.GuestIP)
	if err != nil {
		return nil, err
	}
	session, err := l.Client.Session(ctx, lab.GuestIP)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(ctx)
	p := &probes{pinger: pinger, session: session, cancel: cancel, done: make(chan struct{}, 2)}
	go func() { pinger.Run(run); p.done <- struct{}{} }()
	go func() { session.Run(run); p.done <- struct{}{} }() // how it broke is in its report
	return p, nil
}

func (p *probes) report() (lab.PingReport, lab.SessionReport) {
	return p.pinger.Report(), p.session.Report()
}

func (p *probes) stop() {
	p.cancel()
	<-p.done
	<-p.done
}
