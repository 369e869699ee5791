package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

const (
	// redraw is often enough for an eye and slow enough for an ssh session.
	redraw = 100 * time.Millisecond
	// heartbeat is how often a log gets a line when nothing but numbers change.
	heartbeat = 10 * time.Second
)

// A display shows a job that runs: on a terminal as one block that is drawn
// again in its place, elsewhere as a line for each thing worth telling.
type display struct {
	w     io.Writer
	width func() int // of the terminal in columns; 0: it is none
	hint  string     // what the operator can do, below the block

	drawn int // lines of the block on the screen
	last  gateway.JobEvent
	shown time.Time // At of the event that was shown last
}

// update shows ev, or leaves it out because nothing new is in it.
func (d *display) update(ev gateway.JobEvent) {
	news := d.shown.IsZero() || told(d.last.Job) != told(ev.Job)
	since := ev.At.Sub(d.shown)
	d.last = ev
	width := d.width()
	switch {
	case width > 0 && (news || since >= redraw):
		d.draw(block(ev, width, d.hint))
	case width == 0 && (news || since >= heartbeat):
		fmt.Fprintln(d.w, line(ev))
	default:
		return
	}
	d.shown = ev.At
}

// told is what makes a state worth a line of its own.
func told(j gateway.Job) string {
	return fmt.Sprint(j.State, "|", j.Phase, "|", j.Progress.Rounds, "|", j.Progress.Stalled)
}

// note writes a line that stays, above the block.
func (d *display) note(format string, args ...any) {
	d.clear()
	fmt.Fprintf(d.w, format+"\n", args...)
	if width := d.width(); width > 0 && !d.shown.IsZero() {
		d.draw(block(d.last, width, d.hint))
	}
}

// end leaves the last state on the screen, without the hint.
func (d *display) end() {
	d.hint = ""
	if width := d.width(); width > 0 && !d.shown.IsZero() {
		d.draw(block(d.last, width, ""))
	}
	d.drawn = 0
}

// draw puts lines where the block was. One write, so that it does not flicker.
func (d *display) draw(lines []string) {
	var b strings.Builder
	b.WriteString(d.home())
	for _, l := range lines {
		b.WriteString(l)
		b.WriteString("\n")
	}
	d.drawn = len(lines)
	_, _ = io.WriteString(d.w, b.String()) // stderr is gone; the job is not
}

func (d *display) clear() {
	_, _ = io.WriteString(d.w, d.home())
	d.drawn = 0
}

// home moves the cursor to where the block began and erases from there
// (ECMA-48: CUU and ED).
func (d *display) home() string {
	if d.drawn == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dA\x1b[J", d.drawn)
}

// block is the job as lines of at most width columns.
func block(ev gateway.JobEvent, width int, hint string) []string {
	j, p := ev.Job, ev.Job.Progress
	lines := []string{
		fmt.Sprintf("%s  %s -> %s  %s  %s  %s", j.VM, j.From, j.To, j.ID, clock(ev), doing(j)),
		fmt.Sprintf("  memory    %s %s of %s to go, round %d", bar(p, 24), size(p.Remaining), size(p.TotalBytes), p.Rounds),
		fmt.Sprintf("  dirtied   %s%s", rate(p.DirtyRate), throttled(p)),
		fmt.Sprintf("  crossed   %s as %s on the wire, %s", size(p.LogicalBytes), size(p.WireBytes), times(p.Reduction)),
		fmt.Sprintf("  rate      %s, cap %s", rate(p.Rate), limit(p.RateCap)),
		fmt.Sprintf("  backlog   %s of at most %s", size(p.Backlog), size(p.BacklogMax)),
	}
	if p.Codec != "" {
		lines = append(lines, "  codec     "+codec(p))
	}
	lines = append(lines, fmt.Sprintf("  switch    %s, downtime %s", eta(p), forecast(p)))
	if p.Stalled != "" {
		lines = append(lines, "  stalled   "+p.Stalled)
	}
	if hint != "" && !j.State.Ended() {
		lines = append(lines, hint)
	}
	for i, l := range lines {
		lines[i] = cut(clean(l), width)
	}
	return lines
}

// line is the job in one line, for a log.
func line(ev gateway.JobEvent) string {
	j, p := ev.Job, ev.Job.Progress
	text := fmt.Sprintf("%s %s %s: %s", clock(ev), j.ID, j.VM, doing(j))
	if j.State == gateway.JobMoving || j.State == gateway.JobSwitching {
		with := ""
		if p.Codec != "" {
			with = " with " + p.Codec
		}
		text += fmt.Sprintf("; round %d, %s to go, dirtied %s%s; %s as %s (%s) at %s%s; backlog %s; switch %s, downtime %s",
			p.Rounds, size(p.Remaining), rate(p.DirtyRate), throttled(p), size(p.LogicalBytes), size(p.WireBytes),
			times(p.Reduction), rate(p.Rate), with, size(p.Backlog), eta(p), forecast(p))
	}
	if p.Stalled != "" {
		text += "; stalled: " + p.Stalled
	}
	return clean(text)
}

func doing(j gateway.Job) string {
	if j.Phase == "" || j.State.Ended() {
		return string(j.State)
	}
	return string(j.State) + ": " + j.Phase
}

// clock is how long the job has run: "01:23".
func clock(ev gateway.JobEvent) string {
	at := ev.At
	if ev.Job.Ended != nil {
		at = *ev.Job.Ended
	}
	d := max(at.Sub(ev.Job.Started), 0)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// bar shows how much of the memory is across, as the hypervisor counts it.
func bar(p gateway.JobProgress, columns int) string {
	done := 0.0
	if p.TotalBytes > 0 && p.Rounds > 0 {
		done = min(max(1-float64(p.Remaining)/float64(p.TotalBytes), 0), 1)
	}
	full := int(done * float64(columns))
	return fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("#", full), strings.Repeat("-", columns-full), done*100)
}

// sealed says what it costs that the hypervisor compresses pages by itself.
func sealed(method string) string {
	return "compressed by QEMU with " + clean(method) + ", which is not looked into: they pass as they are, and the next move gains nothing by them"
}

// codec is how what crosses is compressed, and what holds the move up.
func codec(p gateway.JobProgress) string {
	by := map[string]string{
		"line": "the line", "cpu": "the CPUs of the source's site", "destination": "the destination, which loads", "source": "the source",
	}[p.LimitedBy]
	if by == "" {
		return p.Codec
	}
	return p.Codec + "; held up by " + by
}

func throttled(p gateway.JobProgress) string {
	if p.Throttle == 0 {
		return ""
	}
	return fmt.Sprintf(", guest slowed by %d %%", p.Throttle)
}

// eta is the range of times until the switchover.
func eta(p gateway.JobProgress) string {
	low, high := seconds(p.ETALow), seconds(p.ETAHigh)
	switch {
	case p.ETALow < 0:
		return "not known yet"
	case p.ETAHigh < 0:
		return "in " + low + " at the earliest, or never at this dirty rate"
	case low == high:
		return "in " + low
	}
	return "in " + low + " to " + high
}

func seconds(s float64) string {
	s = min(s, 1e6) // eleven days; more would overflow a Duration
	return span((time.Duration(s * float64(time.Second))).Round(time.Second / 10))
}

func forecast(p gateway.JobProgress) string {
	if p.Downtime <= 0 {
		return "not known yet"
	}
	return "about " + millis(p.Downtime)
}

// cut shortens a line that would wrap: a wrapped line is two on the screen,
// and the block would creep.
func cut(s string, width int) string {
	if r := []rune(s); len(r) > width-1 {
		return string(r[:max(width-1, 0)])
	}
	return s
}
