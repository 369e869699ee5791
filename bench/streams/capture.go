package streams

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/longhaul-project/longhaul/internal/qemu/qmp"
)

// pace of a capture.
type pace struct {
	rounds    int   // passes over memory before the guest is let go; 0 lets it go as soon as QEMU wants
	bandwidth int64 // bytes per second until then; 0 means as fast as it goes
}

// letGo ends a migration at the next pass, whatever is dirty.
var letGo = qmp.MigrateParameters{MaxBandwidth: 16 << 30, DowntimeLimit: 600_000}

// capture migrates a guest into a file, which appears when it is whole, and
// returns the number of rounds. The guest is paused after it.
func (m *machine) capture(ctx context.Context, path string, p pace) (rounds int, err error) {
	ctx, cancel := context.WithTimeout(ctx, captureLimit)
	defer cancel()
	events := m.mon.Subscribe("MIGRATION", "MIGRATION_PASS")
	defer events.Close()
	if err := m.mon.SetMigrateCapabilities(ctx, map[string]bool{qmp.CapEvents: true}); err != nil {
		return 0, err
	}
	params := letGo
	if p.rounds > 0 {
		params = qmp.MigrateParameters{MaxBandwidth: p.bandwidth, DowntimeLimit: 1}
	}
	if err := m.mon.SetMigrateParameters(ctx, params); err != nil {
		return 0, err
	}
	// The shell renames only what cat has read to its end.
	if err := m.mon.Migrate(ctx, "exec:cat > '"+path+".part' && mv '"+path+".part' '"+path+"'"); err != nil {
		return 0, err
	}
	if err := m.follow(ctx, events, p.rounds); err != nil {
		return 0, err
	}
	got, err := m.mon.QueryMigrate(ctx)
	if err != nil {
		return 0, err
	}
	return int(got.RAM.DirtySyncCount), appears(ctx, path)
}

// incoming are the arguments of a QEMU that is to load a stream.
var incoming = []string{"-incoming", "defer", "-S"}

// load loads a captured stream. The guest is paused after it, as it was.
func (m *machine) load(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, captureLimit)
	defer cancel()
	events := m.mon.Subscribe("MIGRATION")
	defer events.Close()
	if err := m.mon.SetMigrateCapabilities(ctx, map[string]bool{qmp.CapEvents: true}); err != nil {
		return err
	}
	if err := m.mon.MigrateIncoming(ctx, "exec:cat '"+path+"'"); err != nil {
		return err
	}
	if err := m.follow(ctx, events, 0); err != nil {
		return fmt.Errorf("loading %s: %w", path, err)
	}
	return nil
}

// follow waits for the end of a migration, and lets it go after its rounds.
func (m *machine) follow(ctx context.Context, events *qmp.Subscription, rounds int) error {
	for {
		ev, err := events.Next(ctx)
		if err != nil {
			return fmt.Errorf("following the migration: %w", err)
		}
		var data struct {
			Status string
			Pass   int
		}
		if err := json.Unmarshal(ev.Data, &data); err != nil {
			return err
		}
		switch {
		case data.Status == "completed":
			return nil
		case data.Status == "failed" || data.Status == "cancelled":
			return fmt.Errorf("the migration has %s", data.Status)
		case rounds > 0 && data.Pass >= rounds:
			rounds = 0
			if err := m.mon.SetMigrateParameters(ctx, letGo); err != nil {
				return err
			}
		}
	}
}

// appears waits for a file that a process which has ended, or nearly so, makes.
func appears(ctx context.Context, path string) error {
	for range time.Tick(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for %s: %w", path, ctx.Err())
		}
	}
	return nil
}
