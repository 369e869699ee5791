package qmp

import (
	"context"
	"time"
)

// Names of migration capabilities (QEMU qapi/migration.json, MigrationCapability).
const (
	CapEvents             = "events"
	CapReturnPath         = "return-path"
	CapPauseBeforeSwitch  = "pause-before-switchover"
	CapLateBlockActivate  = "late-block-activate"
	CapMultifd            = "multifd"
	CapAutoConverge       = "auto-converge"
	CapXBZRLE             = "xbzrle"
	CapCompress           = "compress" // until 9.0
	CapPostcopyRAM        = "postcopy-ram"
	CapPostcopyPreempt    = "postcopy-preempt" // 7.1
	CapBackgroundSnapshot = "background-snapshot"
	CapZeroCopySend       = "zero-copy-send" // 7.1
	CapSwitchoverAck      = "switchover-ack" // 8.1
	CapDirtyLimit         = "dirty-limit"    // 8.1
	CapReleaseRAM         = "release-ram"
	CapXColo              = "x-colo"
	CapMappedRAM          = "mapped-ram"      // 9.0
	CapXIgnoreShared      = "x-ignore-shared" // memory stays behind
	CapBlock              = "block"           // until 9.0
	CapDirtyBitmaps       = "dirty-bitmaps"
	CapRDMAPinAll         = "rdma-pin-all"
	CapValidateUUID       = "validate-uuid"
)

// capability is one entry of the lists of capabilities.
type capability struct {
	Name  string `json:"capability"`
	State bool   `json:"state"`
}

// MigrateCapabilities asks which capabilities this QEMU knows, and which are on.
func (c *Client) MigrateCapabilities(ctx context.Context) (map[string]bool, error) {
	var list []capability
	if err := c.Execute(ctx, "query-migrate-capabilities", nil, &list); err != nil {
		return nil, err
	}
	caps := make(map[string]bool, len(list))
	for _, entry := range list {
		caps[entry.Name] = entry.State
	}
	return caps, nil
}

// SetMigrateCapabilities turns capabilities on and off, all or none of them.
func (c *Client) SetMigrateCapabilities(ctx context.Context, caps map[string]bool) error {
	list := make([]capability, 0, len(caps))
	for name, state := range caps {
		list = append(list, capability{name, state})
	}
	return c.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": list}, nil)
}

// MigrateParameters are those that we set. A zero field is left as it is.
type MigrateParameters struct {
	MaxBandwidth       int64  `json:"max-bandwidth,omitempty"`  // bytes per second
	DowntimeLimit      int64  `json:"downtime-limit,omitempty"` // ms, at most 2 000 000
	MultifdChannels    int    `json:"multifd-channels,omitempty"`
	MultifdCompression string `json:"multifd-compression,omitempty"`
	SwitchoverRate     int64  `json:"avail-switchover-bandwidth,omitempty"` // bytes per second; 8.2
	ThrottleInitial    int    `json:"cpu-throttle-initial,omitempty"`       // per cent
	ThrottleIncrement  int    `json:"cpu-throttle-increment,omitempty"`     // per cent
	ThrottleMax        int    `json:"max-cpu-throttle,omitempty"`           // per cent
}

// SetMigrateParameters changes parameters; most may be changed at any time.
func (c *Client) SetMigrateParameters(ctx context.Context, p MigrateParameters) error {
	return c.Execute(ctx, "migrate-set-parameters", p, nil)
}

// QueryMigrateParameters asks for the parameters that we set.
func (c *Client) QueryMigrateParameters(ctx context.Context) (p MigrateParameters, err error) {
	err = c.Execute(ctx, "query-migrate-parameters", nil, &p)
	return p, err
}

// Migrate begins a migration into uri.
func (c *Client) Migrate(ctx context.Context, uri string) error {
	return c.Execute(ctx, "migrate", map[string]any{"uri": uri}, nil)
}

// MigrateResume goes on with a paused postcopy migration over a new connection.
func (c *Client) MigrateResume(ctx context.Context, uri string) error {
	return c.Execute(ctx, "migrate", map[string]any{"uri": uri, "resume": true}, nil)
}

// MigrateIncoming makes a QEMU that was started with -incoming defer listen.
func (c *Client) MigrateIncoming(ctx context.Context, uri string) error {
	return c.Execute(ctx, "migrate-incoming", map[string]any{"uri": uri}, nil)
}

// MigrateContinue lets a migration pass the state at which it has stopped.
func (c *Client) MigrateContinue(ctx context.Context, state string) error {
	return c.Execute(ctx, "migrate-continue", map[string]any{"state": state}, nil)
}

// MigrateCancel begins to cancel a migration.
func (c *Client) MigrateCancel(ctx context.Context) error {
	return c.Execute(ctx, "migrate_cancel", nil, nil)
}

// MigrateStartPostcopy moves execution to the destination at once.
func (c *Client) MigrateStartPostcopy(ctx context.Context) error {
	return c.Execute(ctx, "migrate-start-postcopy", nil, nil)
}

// MigratePause pauses a postcopy migration whose network is stuck.
func (c *Client) MigratePause(ctx context.Context) error {
	return c.ExecuteOOB(ctx, "migrate-pause", nil, nil)
}

// MigrateRecover makes the destination of a paused postcopy migration listen.
func (c *Client) MigrateRecover(ctx context.Context, uri string) error {
	return c.ExecuteOOB(ctx, "migrate-recover", map[string]any{"uri": uri}, nil)
}

// Migration is how a migration stands. Status is empty if there was none.
type Migration struct {
	Status    string `json:"status"`
	ErrorDesc string `json:"error-desc"`
	Downtime  int64  `json:"downtime"`                // ms, when completed
	Expected  int64  `json:"expected-downtime"`       // ms, while active
	TotalTime int64  `json:"total-time"`              // ms
	Throttle  int    `json:"cpu-throttle-percentage"` // while it throttles
	RAM       struct {
		Transferred    int64   `json:"transferred"`      // bytes
		Remaining      int64   `json:"remaining"`        // bytes
		Total          int64   `json:"total"`            // bytes
		Duplicate      int64   `json:"duplicate"`        // zero pages
		Normal         int64   `json:"normal"`           // pages
		DirtyPagesRate int64   `json:"dirty-pages-rate"` // pages per second
		DirtySyncCount int64   `json:"dirty-sync-count"` // rounds
		PageSize       int64   `json:"page-size"`        // bytes
		Mbps           float64 `json:"mbps"`
	} `json:"ram"`
	Blocked []string `json:"blocked-reasons"`
}

// Ended tells whether nothing is under way.
func (m Migration) Ended() bool {
	switch m.Status {
	case "", "none", "completed", "failed", "cancelled":
		return true
	}
	return false
}

// QueryMigrate asks how the migration stands, out or in.
func (c *Client) QueryMigrate(ctx context.Context) (m Migration, err error) {
	err = c.Execute(ctx, "query-migrate", nil, &m)
	return m, err
}

// AnnounceSelf makes the NICs announce themselves: rounds times, first after
// initial, then each time step later, at most limit.
func (c *Client) AnnounceSelf(ctx context.Context, initial, limit, step time.Duration, rounds int) error {
	return c.Execute(ctx, "announce-self", map[string]any{
		"initial": initial.Milliseconds(), "max": limit.Milliseconds(), "step": step.Milliseconds(), "rounds": rounds,
	}, nil)
}
