package loglimit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/internal/loglimit"
)

// newLog is a log without times, and its lines since the last call.
func newLog(apart ...string) (log *slog.Logger, h *loglimit.Handler, lines func() []string) {
	var b bytes.Buffer
	h = loglimit.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}), apart...)
	return slog.New(h), h, func() []string {
		defer b.Reset()
		return strings.FieldsFunc(b.String(), func(r rune) bool { return r == '\n' })
	}
}

// TestFlood: of a flood the beginning is written, then a line now and then, which tells
// how many were not; and who is not part of it is heard.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, h, lines := newLog("peer")
		for i := range 10_000 {
			log.Warn("refused", "peer", "b", "n", i)
		}
		if got := lines(); len(got) != loglimit.Burst || got[0] != "msg=refused peer=b n=0" {
			t.Errorf("%d lines, first %q", len(got), got[0])
		}
		log.Warn("refused", "peer", "c", "n", 0)
		log.Warn("other", "peer", "b")
		h.Report(time.Now())
		if got := fmt.Sprint(lines()); got != "[msg=refused peer=c n=0 msg=other peer=b]" {
			t.Errorf("of others: %s", got)
		}
		time.Sleep(loglimit.Every)
		log.Warn("refused", "peer", "b", "n", 7)
		log.Warn("refused", "peer", "b", "n", 8)
		if got := fmt.Sprint(lines()); got != fmt.Sprintf("[msg=refused peer=b n=7 left_out=%d]", 10_000-loglimit.Burst) {
			t.Errorf("a minute later: %s", got)
		}
		time.Sleep(loglimit.Every)
		h.Report(time.Now())
		h.Report(time.Now())
		if got := fmt.Sprint(lines()); got != `[msg="lines of this kind were left out" message=refused peer=b left_out=1]` {
			t.Errorf("at the end: %s", got)
		}
		time.Sleep(loglimit.Burst * loglimit.Every)
		for range loglimit.Burst + 1 {
			log.Warn("refused", "peer", "b")
		}
		if got := lines(); len(got) != loglimit.Burst || strings.Contains(got[0], "left_out") {
			t.Errorf("an hour later: %d lines, first %q", len(got), got[0])
		}
	})
}

// TestManyKinds: kinds are bounded, those that are over are forgotten, and what finds no
// place is limited as well.
func TestManyKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 100_000
		log, _, lines := newLog("peer")
		for i := range many {
			log.Warn("refused", "peer", i)
		}
		first := len(lines())
		if first < 1000 || first > 1100 {
			t.Errorf("%d lines of %d kinds", first, many)
		}
		time.Sleep(loglimit.Every)
		for i := range many {
			log.Warn("refused", "peer", many+i)
		}
		if again := len(lines()); again < 1000 || again > 1100 {
			t.Errorf("a minute later, %d lines of as many others", again)
		}
	})
}

// TestOverflow: what finds no place at one level leaves the others their share.
func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _, lines := newLog("peer")
		for i := range 10_000 {
			log.Warn("refused", "peer", i)
		}
		lines()
		for i := range 1000 {
			log.Error("loop", "peer", i)
		}
		if got := lines(); len(got) != loglimit.Burst || got[0] != "msg=loop peer=0" {
			t.Errorf("%d lines, first %q", len(got), got[:min(1, len(got))])
		}
	})
}

// TestUnlimited: who asks for it gets past the limits, with the attributes that are set.
func TestUnlimited(t *testing.T) {
	log, _, lines := newLog("peer")
	log = slog.New(log.With("peer", "b").Handler().(*loglimit.Handler).Unlimited())
	for range 2 * loglimit.Burst {
		log.Info("hello")
	}
	if got := lines(); len(got) != 2*loglimit.Burst || got[0] != "msg=hello peer=b" {
		t.Errorf("%d lines, first %q", len(got), got[:min(1, len(got))])
	}
}

// TestWith: attributes that a logger has tell kinds apart as well, those of groups do not.
func TestWith(t *testing.T) {
	log, h, lines := newLog("peer")
	for _, l := range []*slog.Logger{log.With("peer", "b"), log.With("peer", "c", "x", 1), log.WithGroup("g").With("peer", "d"), log.WithGroup("g")} {
		for range loglimit.Burst + 1 {
			l.Info("hello", "peer", "e")
		}
	}
	if got := lines(); len(got) != 3*loglimit.Burst {
		t.Errorf("%d lines", len(got))
	}
	if loglimit.New(h) != h {
		t.Error("a limited handler is limited twice")
	}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("lines are taken that nobody writes")
	}
}

// TestHandler holds it to what is asked of any handler.
func TestHandler(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		b.Reset()
		return loglimit.New(slog.NewJSONHandler(&b, nil), "a")
	}, func(t *testing.T) (line map[string]any) {
		if err := json.Unmarshal(b.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		return line
	})
}
