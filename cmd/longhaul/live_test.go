package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api/apitest"
	"github.com/longhaul-project/longhaul/gateway/api/client"
)

// event is a move in its second round, after d.
func event(d time.Duration) gateway.JobEvent {
	return gateway.JobEvent{At: apitest.Epoch().Add(d), Job: gateway.Job{
		ID: "5f3a", VM: "db1", From: "a", To: "b", Role: "source",
		State: gateway.JobMoving, Phase: "copying memory", Started: apitest.Epoch(),
		Progress: gateway.JobProgress{
			Rounds: 2, TotalBytes: 4 << 30, Remaining: 1 << 30, DirtyRate: 42_000_000,
			LogicalBytes: 5 << 30, WireBytes: 640 << 20, Rate: 187_300_000, RateCap: 200_000_000,
			Backlog: 3 << 20, BacklogMax: 4 << 20, Reduction: 8, ETALow: 12.34, ETAHigh: 61, Downtime: 1280,
		},
	}}
}

func TestBlock(t *testing.T) {
	ev := event(83 * time.Second)
	got := strings.Join(block(ev, 80, "Ctrl-C aborts the move"), "\n")
	want := `db1  a -> b  5f3a  01:23  moving: copying memory
  memory    [##################------]  75 % 1 GiB of 4 GiB to go, round 2
  dirtied   42 Mbit/s
  crossed   5 GiB as 640 MiB on the wire, 8.0x
  rate      187 Mbit/s, cap 200 Mbit/s
  backlog   3 MiB of at most 4 MiB
  switch    in 12.3 s to 1 min 1 s, downtime about 1.28 s
Ctrl-C aborts the move`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	p := &ev.Job.Progress
	p.Throttle, p.ETAHigh, p.Stalled = 40, -1, "the WAN is away since 00:42\x1b[2J"
	p.Codec, p.LimitedBy = "zstd-3, 4 bases", "cpu"
	ev.Job.VM = strings.Repeat("x", 100)
	for _, l := range block(ev, 60, "") {
		if n := len([]rune(l)); n > 59 {
			t.Errorf("%d columns: %s", n, l)
		}
	}
	got = strings.Join(block(ev, 200, ""), "\n")
	for _, want := range []string{
		"guest slowed by 40 %", "in 12.3 s at the earliest, or never at this dirty rate", "stalled   the WAN is away",
		"codec     zstd-3, 4 bases; held up by the CPUs of the source's site",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "\x1b") {
		t.Error("text of a peer moves the cursor")
	}
}

func TestLine(t *testing.T) {
	got := line(event(83 * time.Second))
	want := "01:23 5f3a db1: moving: copying memory; round 2, 1 GiB to go, dirtied 42 Mbit/s; 5 GiB as 640 MiB (8.0x) " +
		"at 187 Mbit/s; backlog 3 MiB; switch in 12.3 s to 1 min 1 s, downtime about 1.28 s"
	if got != want {
		t.Error(cmp.Diff(want, got))
	}
	ev := event(0)
	ev.Job.Progress.Codec = "lz4, no search"
	if got, want := line(ev), "at 187 Mbit/s with lz4, no search; backlog"; !strings.Contains(got, want) {
		t.Errorf("no %q in %s", want, got)
	}
}

// A screen does what a terminal does with what a display writes.
type screen struct{ lines []string }

func (s *screen) Write(b []byte) (int, error) {
	text := string(b)
	for text != "" {
		var up int
		if n, _ := fmt.Sscanf(text, "\x1b[%dA\x1b[J", &up); n == 1 {
			s.lines = s.lines[:max(len(s.lines)-up, 0)]
			text = text[strings.Index(text, "J")+1:]
			continue
		}
		line, rest, _ := strings.Cut(text, "\n")
		s.lines = append(s.lines, line)
		text = rest
	}
	return len(b), nil
}

func TestDisplayOnTerminal(t *testing.T) {
	var s screen
	width := 80
	d := &display{w: &s, width: func() int { return width }, hint: "Ctrl-C"}
	d.update(event(0))
	ev := event(50 * time.Millisecond) // too soon, and nothing new but numbers
	ev.Job.Progress.Rate = 1_000_000
	d.update(ev)
	if len(s.lines) != 8 || strings.Contains(strings.Join(s.lines, ""), "1 Mbit/s, cap") {
		t.Errorf("drawn too soon: %q", s.lines)
	}
	d.note("aborting")
	if s.lines[0] != "aborting" || len(s.lines) != 9 || !strings.Contains(s.lines[5], "1 Mbit/s, cap") {
		t.Errorf("after a note: %q", s.lines)
	}
	ev = event(time.Second)
	ev.Job.Progress.Stalled = "the WAN is away"
	d.update(ev)
	if len(s.lines) != 10 {
		t.Errorf("with a line more: %q", s.lines)
	}
	ev = event(2 * time.Second)
	ev.Job.State, ev.Job.Phase = gateway.JobDone, "ended"
	d.update(ev)
	d.end()
	if len(s.lines) != 8 || s.lines[0] != "aborting" || s.lines[1] != "db1  a -> b  5f3a  00:02  done" || s.lines[7][:8] != "  switch" {
		t.Errorf("at the end: %q", s.lines)
	}
	d.note("more")
	if len(s.lines) != 16 && s.lines[8] != "more" {
		t.Errorf("a note after the end has erased the block: %q", s.lines)
	}
}

func TestDisplayInLog(t *testing.T) {
	var s screen
	d := &display{w: &s, width: func() int { return 0 }, hint: "Ctrl-C"}
	for sec := range 25 { // numbers change all the time: a line each 10 s
		ev := event(time.Duration(sec) * time.Second)
		ev.Job.Progress.Rate += int64(sec) * 1e6
		d.update(ev)
	}
	if len(s.lines) != 3 {
		t.Errorf("%d lines: %q", len(s.lines), s.lines)
	}
	ev := event(25 * time.Second)
	ev.Job.Progress.Rounds++ // news: a line at once
	d.update(ev)
	d.note("aborting")
	d.end()
	if len(s.lines) != 5 || s.lines[4] != "aborting" || strings.Contains(strings.Join(s.lines, ""), "\x1b") {
		t.Errorf("%d lines: %q", len(s.lines), s.lines)
	}
}

func TestHuman(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(1023), "1023 B"}, {size(1024), "1 KiB"}, {size(1536 << 20), "1.5 GiB"},
		{size(262152 << 10), "256 MiB"}, {size(1<<63 - 1), "8192 PiB"}, {size(-1 << 20), "-1 MiB"},
		{rate(0), "0 bit/s"}, {rate(200_000_000), "200 Mbit/s"}, {rate(1_250_000_000), "1.25 Gbit/s"},
		{rate(999_999), "1000 kbit/s"}, {limit(0), "none"}, {limit(5e6), "5 Mbit/s"},
		{span(0), "0 ms"}, {span(187 * time.Millisecond), "187 ms"}, {span(12345 * time.Millisecond), "12.3 s"},
		{span(245 * time.Second), "4 min 5 s"}, {span(2*time.Hour + time.Minute), "2 h 1 min"},
		{times(0), "-"}, {times(7.96), "8.0x"}, {moment(time.Time{}), "-"}, {clean("a\tb\x1b[m\u009bc"), "a b [m c"},
		{seconds(1e300), "277 h 46 min"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// What the second signal, and any that is not Ctrl-C, does to a move.
func TestAborterLeaves(t *testing.T) {
	b := &aborter{client: client.New("/none"), job: gateway.Job{ID: "5f3a"}, note: t.Logf}
	if err := b.signal(1, syscall.SIGTERM); !errors.Is(err, errInterrupted) || b.asked {
		t.Errorf("SIGTERM: %v, asked %v", err, b.asked)
	}
	if err := b.signal(2, os.Interrupt); !errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), "5f3a goes on at the gateway") {
		t.Errorf("second Ctrl-C: %v", err)
	}
	if err := b.signal(1, os.Interrupt); err != nil || !b.asked { // no gateway: it goes on waiting
		t.Errorf("first Ctrl-C: %v, asked %v", err, b.asked)
	}
}
