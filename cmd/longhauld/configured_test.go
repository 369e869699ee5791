package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/cmd/longhauld/config"
	"github.com/longhaul-project/longhaul/gateway"
)

// TestForwardsTriedAgain: a forward of the config whose port is taken, or whose site is
// not known, is made when that has ended, and what is wrong is said once.
func TestForwardsTriedAgain(t *testing.T) {
	var log strings.Builder
	wrong := map[string]error{
		"taken": errors.New("address already in use"),
		"far":   fmt.Errorf("site z: %w", gateway.ErrNoSite),
	}
	made := map[string]int{}
	w := &forwards{
		add: func(_ context.Context, f config.Forward) error {
			if err := wrong[f.Name]; err != nil {
				return err
			}
			made[f.Name]++
			return nil
		},
		log: slog.New(slog.NewTextHandler(&log, nil)), told: map[string]string{},
		waiting: []config.Forward{{Name: "taken"}, {Name: "well"}, {Name: "far"}},
	}
	for range 3 {
		w.try(t.Context())
	}
	if made["well"] != 1 || len(made) != 1 || len(w.waiting) != 2 {
		t.Errorf("made %v, waiting %+v", made, w.waiting)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines for two that do not work:\n%s", n, &log)
	}
	clear(wrong)
	w.try(t.Context())
	w.try(t.Context())
	if made["taken"] != 1 || made["far"] != 1 || made["well"] != 1 || len(w.waiting) != 0 {
		t.Errorf("made %v, waiting %+v", made, w.waiting)
	}
	if n := strings.Count(log.String(), "works now"); n != 2 {
		t.Errorf("%d of two are told to work now:\n%s", n, &log)
	}
}
