package l2ext_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/internal/loglimit"
	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/announce"
	"github.com/longhaul-project/longhaul/l2ext/ether"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex // guards what follows
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// of gives those that have a text in them.
func (l *lines) of(text string) (some []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			some = append(some, line)
		}
	}
	return some
}

// TestNobodyFillsTheLog has a peer say, and guests send, whatever is worth a line, thousands
// of times: the log has the first lines of each kind, and how many there were; the counts
// leave nothing out.
func TestNobodyFillsTheLog(t *testing.T) {
	inMode(t, l2ext.Secure)
	const times = 5000 // more than jobs can be known
	var log lines
	record := func(mac l2ext.MAC, seq uint64) announce.Message {
		return announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: mac, Cause: announce.Moved, Seq: seq, Site: "b", Job: "j"}}}
	}
	numbered := func(i int) l2ext.MAC { return l2ext.MAC{2, 9, 0, 0, byte(i >> 8), byte(i)} }
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, func(cfg *l2ext.Config) {
			if cfg.Site == "a" {
				cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
		}, l2exttest.Line{}, "a", "b", "c")
		say := func(from string, msg announce.Message) {
			b, err := msg.Append(nil)
			check(t, err)
			_ = w.ms["a"].HandleUrgent(from, b) // what is refused is counted
		}
		for _, tt := range []struct {
			name, line string // what the log has of it
			once       func(i int)
			count      l2ext.Count
			counted    int // of times; 0: that many, -1: at least one
		}{
			{"ways", "another mode", func(i int) {
				say("b", announce.Message{Kind: announce.Way, VNI: 100, Mode: string(l2ext.Direct), Addr: netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})})
			}, l2ext.WayChanges, 0},
			{"modes", "another mode", func(i int) {
				say("b", announce.Message{Kind: announce.Way, VNI: 100, Mode: string([]l2ext.Mode{l2ext.Direct, l2ext.Secure}[i%2])})
			}, l2ext.WayChanges, 0},
			{"digests", "bindings differ", func(i int) {
				say("b", announce.Message{Kind: announce.Digest, VNI: 100, Count: uint32(i + 100)})
			}, l2ext.Refused, -2},
			{"hosts of others", "segment is odd", func(i int) {
				say("c", record(numbered(i), 1))
				check(t, w.hosts["a"].Send("lan", ether.AppendAnnounce(nil, numbered(i), netip.Addr{})))
			}, l2ext.Fenced, -1},
			// From here on the LAN of a is joined with another, and nothing is taken from there.
			{"loops of two", "loop", func(i int) {
				site := []string{"b", "c"}[i%2]
				say(site, announce.Message{Kind: announce.Loop, VNI: 100, Site: site})
			}, l2ext.LoopTrips, 2}, // each is news once
			{"jobs", "job not noted", func(i int) {
				say("c", announce.Message{Kind: announce.Prepare, VNI: 100, Site: "b", Job: fmt.Sprint("job", i)})
			}, l2ext.Refused, times - 4096},
		} {
			say("b", announce.Message{Kind: announce.Way, VNI: 100, Mode: string(l2ext.Secure)})
			w.pass(time.Second)
			before := w.count("a", tt.count)
			for i := range times {
				tt.once(i)
				synctest.Wait()
			}
			counted := w.count("a", tt.count) - before
			want := map[int]int{0: times, -2: 0}
			if n, ok := want[tt.counted]; ok && counted != n || tt.counted > 0 && counted != tt.counted || tt.counted == -1 && counted < times/2 {
				t.Errorf("%s: %d of %d are counted as %v", tt.name, counted, times, tt.count)
			}
			if n := len(log.of(tt.line)); n < 1 || n > 3*loglimit.Burst {
				t.Errorf("%s: %d lines", tt.name, n)
			}
		}
		w.pass(2 * loglimit.Every)
		if n := len(log.of("left_out=")); n < 4 {
			t.Errorf("%d lines tell of lines that were left out", n)
		}
		if n := len(log.of("")); n > 40*loglimit.Burst {
			t.Errorf("%d lines in all", n)
		}
	})
}

// stubborn is a host that mutes one port never, and unmutes no other.
type stubborn struct{ l2ext.Host }

func (h stubborn) Mute(port string) error {
	if port == "lan" {
		return errors.New("no")
	}
	return h.Host.Mute(port)
}

func (stubborn) Unmute(string) error { return errors.New("no") }

// TestEvacuationIsLogged: of what this gateway's own moves meet each line is written, as it
// names another VM, although the gateway has handed a limited log in.
func TestEvacuationIsLogged(t *testing.T) {
	const vms = 2 * loglimit.Burst
	var log lines
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, func(cfg *l2ext.Config) {
			cfg.Logger = l2ext.LimitLog(slog.New(slog.NewTextHandler(&log, nil)))
			cfg.Host = stubborn{cfg.Host}
		}, l2exttest.Line{}, "a", "b")
		w.hosts["a"].Plug("br", "tap")
		for i := range vms {
			out, in := fmt.Sprint("out", i), fmt.Sprint("in", i)
			mac := l2ext.MAC{2, 9, 0, 0, 0, byte(i)}
			check(t, w.ms["a"].Prepare(t.Context(), out, []l2ext.NIC{{MAC: mac}}, "elsewhere"))
			check(t, w.ms["a"].Expect(t.Context(), in, []l2ext.NIC{{MAC: mac, Tap: "lan"}, {MAC: mac, Tap: "tap"}}), w.ms["a"].Settle(t.Context(), in, nil))
		}
		for _, line := range []string{"stays behind", "will read broadcasts", "gets no broadcasts"} {
			if n := len(log.of(line)); n != vms {
				t.Errorf("%q: %d lines of %d VMs", line, n, vms)
			}
		}
	})
}

// TestGuestsHideNoDiagnosis: what is wrong with a machine is in its log, however many lines
// its guests have had written before.
func TestGuestsHideNoDiagnosis(t *testing.T) {
	var log lines
	synctest.Test(t, func(t *testing.T) {
		w := newWorldWith(t, func(cfg *l2ext.Config) {
			if cfg.Site == "b" {
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			}
		}, l2exttest.Line{}, "a", "b")
		w.pass(31 * time.Second)
		w.hosts["b"].Firewall()
		twins := []l2ext.MAC{{2, 9, 0, 0, 0, 1}, {2, 9, 0, 0, 0, 2}}
		for _, mac := range twins {
			b, err := announce.Message{Kind: announce.Update, VNI: 100, Records: []announce.Record{{MAC: announce.MAC(mac), Cause: announce.Moved, Seq: 1, Site: "a", Job: "j"}}}.Append(nil)
			check(t, err, w.ms["b"].HandleUrgent("a", b))
			w.settle()
		}
		for i := range 20 * loglimit.Burst {
			check(t, w.hosts["b"].Send("lan", ether.AppendAnnounce(nil, twins[i%2], netip.Addr{})))
			synctest.Wait()
		}
		for range 30 {
			check(t, w.hosts["a"].Send("lan", frameTo(ether.Broadcast, vmMAC, 100)))
			w.settle()
		}
		w.pass(61 * time.Second)
		if odd, own := len(log.of("segment is odd")), log.of("firewall"); odd < loglimit.Burst || len(own) == 0 {
			t.Errorf("%d lines about guests, %q about the machine", odd, own)
		}
	})
}
