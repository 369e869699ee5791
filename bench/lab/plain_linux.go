package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/wanem"
)

// PlainPort is where the destination of a plain move listens on the WAN.
const PlainPort = 4444

// PlainOptions of a move without Longhaul.
type PlainOptions struct {
	VM       *guest.VM
	From, To *Site

	// Downtime that QEMU aims for. Zero means its own default, 300 ms.
	Downtime time.Duration

	// Patience after which the operator gives in and permits Relaxed of
	// downtime, because the move does not converge. Zero means never.
	Patience time.Duration

	// Progress, if not nil, is called about twice a second.
	Progress func(Migration)
}

// MoveReport is what a move took, by the lab's own clock and counters.
type MoveReport struct {
	Total    time.Duration `json:"total_ns"`      // from the request, the start of the destination included, to the source's end
	Downtime time.Duration `json:"downtime_ns"`   // from STOP at the source to RESUME at the destination
	Rounds   int           `json:"rounds"`        // passes over memory
	Logical  int64         `json:"logical_bytes"` // written by the source QEMU
	Wire     int64         `json:"wire_bytes"`    // of the move's TCP connection, all headers and both directions, as they entered the WAN
	Memory   int64         `json:"memory_bytes"`  // of the guest
	Relaxed  bool          `json:"relaxed"`       // Patience ran out
	TCP      string        `json:"tcp"`           // congestion control of the move's connection
}

// Relaxed is the downtime that is permitted when Patience has run out.
const Relaxed = 5 * time.Second

// PlainMove moves a guest by QEMU's own migration over TCP on the WAN, with
// the kernel's congestion control, as one would without Longhaul: max-bandwidth
// out of the way, return path on, everything else as QEMU has it. The LANs must
// be joined, see Stretch. It returns the guest at its destination; the source
// has ended. When it fails or ctx ends, the guest runs at its source.
func (l *Lab) PlainMove(ctx context.Context, o PlainOptions) (vm *guest.VM, r MoveReport, err error) {
	m := plainMove{PlainOptions: o, lab: l, begin: time.Now(), wire: l.Wire(plainFlow).Bytes}
	if err := m.prepare(ctx); err != nil {
		return nil, r, fmt.Errorf("plain move of %s: %w", o.VM.Name, errors.Join(err, m.undo()))
	}
	defer func() { err = errors.Join(err, m.src.Close(), m.dst.Close()) }()
	if err := m.run(ctx); err != nil {
		return nil, r, fmt.Errorf("plain move of %s: %w", o.VM.Name, errors.Join(err, m.undo()))
	}
	return m.vm, m.report, nil
}

func plainFlow(f wanem.Flow) bool { return f.Between(wanem.TCP, PlainPort) }

type plainMove struct {
	PlainOptions
	lab      *Lab
	begin    time.Time
	wire     int64 // bytes of the flow at the beginning
	vm       *guest.VM
	src, dst *Monitor
	report   MoveReport
}

// prepare starts the destination and connects to both QEMUs.
func (m *plainMove) prepare(ctx context.Context) (err error) {
	o := m.VM.Options
	if m.vm, err = m.To.StartIncoming(ctx, o); err != nil {
		return err
	}
	if m.src, err = OpenMonitor(ctx, o.Watch); err != nil {
		return err
	}
	if m.dst, err = OpenMonitor(ctx, m.vm.Watch); err != nil {
		return err
	}
	for _, q := range []*Monitor{m.src, m.dst} {
		if err := q.Do(ctx, "migrate-set-capabilities", capabilities("events", "return-path"), nil); err != nil {
			return err
		}
	}
	// The default of 128 MiB/s would be no limit here either.
	if err := m.src.Do(ctx, "migrate-set-parameters", map[string]int64{"max-bandwidth": 16 << 30}, nil); err != nil {
		return err
	}
	return m.setDowntime(ctx, cmp.Or(m.Downtime, 300*time.Millisecond))
}

func (m *plainMove) setDowntime(ctx context.Context, limit time.Duration) error {
	return m.src.Do(ctx, "migrate-set-parameters", map[string]int64{"downtime-limit": limit.Milliseconds()}, nil)
}

func capabilities(names ...string) any {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	var list []capability
	for _, n := range names {
		list = append(list, capability{n, true})
	}
	return map[string]any{"capabilities": list}
}

func (m *plainMove) run(ctx context.Context) error {
	uri := map[string]string{"uri": fmt.Sprintf("tcp:%v:%d", m.To.WAN, PlainPort)}
	if err := m.dst.Do(ctx, "migrate-incoming", uri, nil); err != nil {
		return err
	}
	if err := m.src.Do(ctx, "migrate", uri, nil); err != nil {
		return err
	}
	end, err := m.completed(ctx)
	if err != nil {
		return err
	}
	stop, err := m.src.Wait(ctx, "STOP")
	if err != nil {
		return err
	}
	resume, err := m.dst.Wait(ctx, "RESUME")
	if err != nil {
		return err
	}
	m.src.Do(ctx, "quit", nil, nil) // its answer may be lost with the process
	m.VM.Kill()
	m.report = MoveReport{
		Total: time.Since(m.begin), Downtime: resume.At.Sub(stop.At), Rounds: end.RAM.Rounds,
		Logical: end.RAM.Transferred, Memory: end.RAM.Total, Wire: m.lab.Wire(plainFlow).Bytes - m.wire,
		Relaxed: m.report.Relaxed, TCP: m.lab.tcp,
	}
	return nil
}

// completed waits until the source says that it is done.
func (m *plainMove) completed(ctx context.Context) (Migration, error) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for n := 0; ; n++ {
		q, err := m.src.Migration(ctx)
		if err != nil {
			return q, err
		}
		if m.Patience > 0 && time.Since(m.begin) > m.Patience && !m.report.Relaxed {
			m.report.Relaxed = true
			if err := m.setDowntime(ctx, Relaxed); err != nil {
				return q, err
			}
		}
		if m.Progress != nil && n%25 == 0 {
			m.Progress(q)
		}
		switch q.Status {
		case "completed":
			return q, nil
		case "failed", "cancelled":
			return q, fmt.Errorf("migration %s: %s", q.Status, q.Error)
		}
		select {
		case <-ctx.Done():
			return q, fmt.Errorf("not done after %v, %d rounds, %d MiB left: %w",
				time.Since(m.begin).Round(time.Second), q.RAM.Rounds, q.RAM.Remaining>>20, ctx.Err())
		case <-look.C:
		}
	}
}

// undoPatience is how long a source may take to cancel.
const undoPatience = 10 * time.Second

// undo leaves the guest at its source.
func (m *plainMove) undo() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoPatience)
	defer cancel()
	var err error
	if m.src != nil {
		err = m.src.Do(ctx, "migrate_cancel", nil, nil)
	}
	if m.vm != nil {
		m.vm.Kill()
	}
	return err
}

// Wire counts the packets that have entered the WAN in either direction since
// the lab began, with their Ethernet headers; nil matches all. The difference
// of two calls is what something took, lost packets included.
func (l *Lab) Wire(match func(wanem.Flow) bool) wanem.Count {
	var sum wanem.Count
	for _, d := range []wanem.Direction{wanem.AB, wanem.BA} {
		c, err := l.WAN.Counters(d)
		switch {
		case err != nil:
			l.log.Warn("no counters of the wan", "direction", d, "err", err)
		case match == nil:
			sum = sum.Add(c.In)
		default:
			sum = sum.Add(c.Sum(match))
		}
	}
	return sum
}

// PortFlow matches the flows of one protocol and port, such as a gateway's UDP
// port with everything that crosses the tunnel.
func PortFlow(proto uint8, port uint16) func(wanem.Flow) bool {
	return func(f wanem.Flow) bool { return f.Between(proto, port) }
}
