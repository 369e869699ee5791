package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/lab"
)

// handMove is a migration that somebody makes by QEMU's own commands, without
// telling Longhaul.
type handMove struct {
	out, in      string   // where the source connects, where the destination listens
	capabilities []string // of both
	parameters   map[string]any
	postcopy     bool // begin postcopy after a few rounds
}

// handTime bounds a move by hand.
const handTime = 2 * time.Minute

// hand is a move by hand under way.
type hand struct {
	b        *bed
	dst      *guest.VM
	src, to  *lab.Monitor
	finished bool
}

// begin starts a destination at the other site and the migration into it.
func (b *bed) begin(t *testing.T, ctx context.Context, m handMove) *hand {
	t.Helper()
	h := &hand{b: b}
	var err error
	if h.dst, err = b.other().StartIncoming(ctx, b.vm.Options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !h.finished {
			h.dst.Kill()
		}
	})
	if h.src, err = lab.OpenMonitor(ctx, b.vm.Watch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.src.Close() })
	if h.to, err = lab.OpenMonitor(ctx, h.dst.Watch); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.to.Close() })
	params := map[string]any{"max-bandwidth": 16 << 30}
	for k, v := range m.parameters {
		params[k] = v
	}
	for _, q := range []*lab.Monitor{h.src, h.to} {
		do(t, ctx, q, "migrate-set-capabilities", capabilities(m.capabilities))
		do(t, ctx, q, "migrate-set-parameters", params)
	}
	do(t, ctx, h.to, "migrate-incoming", map[string]string{"uri": m.in})
	do(t, ctx, h.src, "migrate", map[string]string{"uri": m.out})
	return h
}

func do(t *testing.T, ctx context.Context, m *lab.Monitor, command string, args any) {
	t.Helper()
	if err := m.Do(ctx, command, args, nil); err != nil {
		t.Fatal(err)
	}
}

// capabilities switches on what is named and off what an earlier move has used.
func capabilities(on []string) any {
	state := map[string]bool{"events": true, "return-path": true, "multifd": false, "xbzrle": false, "postcopy-ram": false, "postcopy-preempt": false}
	for _, name := range on {
		state[name] = true
	}
	var list []map[string]any
	for name, s := range state {
		list = append(list, map[string]any{"capability": name, "state": s})
	}
	return map[string]any{"capabilities": list}
}

// moveByHand moves the guest by hand.
func (b *bed) moveByHand(t *testing.T, m handMove) lab.Migration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), handTime)
	defer cancel()
	h := b.begin(t, ctx, m)
	if m.postcopy {
		h.startPostcopy(t, ctx, 3)
	}
	end := h.completes(t, ctx)
	if m.postcopy != h.was("postcopy-active") {
		t.Errorf("postcopy was to be %v and was not: %d events", m.postcopy, len(h.src.Events()))
	}
	return end
}

// startPostcopy has the guest go on at its destination in a round, from 1 on.
func (h *hand) startPostcopy(t *testing.T, ctx context.Context, round int) {
	t.Helper()
	poll(t, ctx, func() error {
		q, err := h.src.Migration(ctx)
		if err == nil && (q.Status != "active" || q.RAM.Rounds < round) {
			err = fmt.Errorf("migration is %s in round %d: %s", q.Status, q.RAM.Rounds, q.Error)
		}
		return err
	})
	do(t, ctx, h.src, "migrate-start-postcopy", nil)
}

// completes waits until the guest runs at its destination, all of it, and ends
// its source.
func (h *hand) completes(t *testing.T, ctx context.Context) (end lab.Migration) {
	t.Helper()
	poll(t, ctx, func() (err error) {
		if end, err = h.src.Migration(ctx); err != nil {
			return err
		}
		if end.Status == "failed" || end.Status == "postcopy-paused" {
			t.Fatalf("migration %s: %s", end.Status, end.Error)
		}
		if end.Status != "completed" {
			return fmt.Errorf("migration is %s in round %d", end.Status, end.RAM.Rounds)
		}
		return nil
	})
	poll(t, ctx, func() error {
		runs, err := h.to.Running(ctx)
		if err == nil && !runs {
			err = errors.New("the destination does not run")
		}
		return err
	})
	b := h.b
	b.vm.Kill() // as one would by "quit"
	b.vm, b.at, h.finished = h.dst, b.other(), true
	return end
}

// was tells whether the migration has been in a state.
func (h *hand) was(state string) bool {
	return slices.ContainsFunc(h.src.Events(), func(e lab.MonitorEvent) bool {
		return e.Name == "MIGRATION" && strings.Contains(string(e.Data), strconv.Quote(state))
	})
}
