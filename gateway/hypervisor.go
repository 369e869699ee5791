package gateway

import (
	"context"
	"net"
	"time"
)

// A Host runs VMs for this site. Adaptors live in internal/; each of them
// passes the suite in gateway/hvtest.
type Host interface {
	// Name is the host's name in this gateway's config.
	Name() string

	// VMs lists the VMs of the host. A VM that cannot be asked is listed
	// with its Problem rather than failing the list.
	VMs(ctx context.Context) ([]VMInfo, error)

	// Source opens the named VM for a move away from here. It fails with
	// ErrNoVM when the host has no such VM.
	Source(ctx context.Context, vm string) (Source, error)

	// Reopen is Source for the very process of which Source.Process once
	// told the identity. It fails with ErrNoVM when that process has ended,
	// whatever else has the VM's name by now, and then names what has.
	Reopen(ctx context.Context, vm, process string) (Source, error)

	// Prepare starts the destination of a move: a hypervisor process that
	// waits, paused, for an incoming stream. The process outlives the
	// gateway. It fails, and leaves nothing behind, when the host's config
	// does not permit what spec asks for.
	Prepare(ctx context.Context, spec Spec) (Sink, error)

	// Attach finds the destination that an earlier Prepare of the same
	// token started, after a restart of the gateway. ErrNoVM: there is none.
	Attach(ctx context.Context, spec Spec) (Sink, error)
}

// VMInfo is one VM as `longhaul vm list` shows it.
type VMInfo struct {
	Name    string        `json:"name" doc:"name of the VM"`
	UUID    string        `json:"uuid,omitempty" doc:"UUID that the hypervisor was started with"`
	Host    string        `json:"host" doc:"host that runs it"`
	State   RunState      `json:"state" doc:"state of execution"`
	Memory  int64         `json:"memory_bytes" doc:"guest memory in bytes"`
	NICs    []NIC         `json:"nics,omitempty" doc:"network interfaces"`
	Disks   []Disk        `json:"disks,omitempty" doc:"writable block devices"`
	Version string        `json:"version,omitempty" doc:"hypervisor version, such as QEMU 7.2.19"`
	Uptime  time.Duration `json:"-"`
	Problem string        `json:"problem,omitempty" doc:"why the VM cannot be asked or moved"`
}

// NIC is one network interface of a VM.
type NIC struct {
	MAC string `json:"mac" doc:"MAC address"`
	Tap string `json:"tap,omitempty" doc:"host interface behind it"`
}

// Disk is one writable block device of a VM.
type Disk struct {
	Node string `json:"node" doc:"block node or device name"`
	Path string `json:"path,omitempty" doc:"file or device behind it"`
	Size int64  `json:"size_bytes" doc:"virtual size in bytes"`
}

// RunState is what a hypervisor says of a VM's execution.
type RunState string

// The states that the path needs to tell apart.
const (
	Running  RunState = "running"
	Paused   RunState = "paused"   // stopped, and can be resumed
	Incoming RunState = "incoming" // waits for or is loading a stream
	Moved    RunState = "moved"    // source of a finished migration: stopped, its state is at the destination
	Gone     RunState = "gone"     // the process has ended
	Unknown  RunState = "unknown"
)

// Spec is what a destination must be started with. It travels between
// gateways: everything in it is checked against the host's config before use.
type Spec struct {
	VM     string   `json:"vm"`
	Token  string   `json:"token"`          // fencing token of the move, 32 hex digits
	UUID   string   `json:"uuid,omitempty"` // as the source runs with
	Memory int64    `json:"memory_bytes"`
	Args   []string `json:"args,omitempty"` // the source's command line, program first
	NICs   []NIC    `json:"nics,omitempty"`
	Disks  []Disk   `json:"disks,omitempty"`

	// Channels is MoveParams.Channels of the move, as both ends have to be
	// told the number of multifd connections. The caller sets it.
	Channels int `json:"channels,omitempty"`
}

// Progress of the hypervisor's own migration, as it counts it.
type Progress struct {
	Status      string // QEMU's own word: "active", "pre-switchover", "completed", …
	Error       string // of a failed migration
	Transferred int64  // bytes written by the hypervisor
	Remaining   int64  // bytes
	Total       int64  // bytes of guest memory
	DirtyRate   int64  // bytes per second, as of the last round
	Rounds      int
	Downtime    time.Duration // as the hypervisor counts it, when completed
	Throttle    int           // per cent by which vCPUs are slowed down
}

// Event is something that the hypervisor tells unasked.
type Event struct {
	Kind EventKind
	At   time.Time // when this gateway read it
	Text string    // of EventStatus: the new status; of EventClosed: why
}

// EventKind tells events apart.
type EventKind string

// The events that the path acts on.
const (
	EventStatus EventKind = "status" // the migration changed its status; Text has it
	EventPass   EventKind = "pass"   // a round over memory begins
	EventStop   EventKind = "stop"   // the VM no longer executes
	EventResume EventKind = "resume" // the VM executes
	EventReset  EventKind = "reset"  // the guest rebooted
	EventExit   EventKind = "exit"   // the hypervisor is ending
	EventClosed EventKind = "closed" // the control connection is gone; the last event
)

// MoveParams are the knobs of a migration.
type MoveParams struct {
	Downtime  time.Duration // limit that the hypervisor aims for
	Bandwidth int64         // bytes per second that the hypervisor may write; our legs pace it
	Channels  int           // multifd connections; 0 means no multifd
	Throttle  bool          // auto-converge: slow the guest down if it dirties memory faster than it crosses
}

// Source is a VM that is about to leave. All methods are safe for concurrent
// use. Close lets go of the control connection and changes nothing in the VM.
type Source interface {
	// Process identifies the hypervisor process, as no other on this host
	// ever will be; only the adaptor knows what it means. "" if that cannot
	// be told.
	Process() string

	// Spec describes what the destination has to be started with. The
	// caller sets the Token.
	Spec(ctx context.Context) (Spec, error)

	// Events of the VM from now on. The channel is closed after EventClosed.
	Events() <-chan Event

	// Start begins the migration into uri ("unix:/path", "tcp:host:port"),
	// such that the VM stops at a point that Continue lets it pass.
	Start(ctx context.Context, uri string, p MoveParams) error

	// Continue lets a migration that stopped before its switchover finish.
	Continue(ctx context.Context) error

	// Cancel ends a migration. The VM goes on running here.
	Cancel(ctx context.Context) error

	// SetDowntime changes the limit while the migration runs.
	SetDowntime(ctx context.Context, limit time.Duration) error

	Progress(ctx context.Context) (Progress, error)
	State(ctx context.Context) (RunState, error)

	// Resume executes a VM that is paused or whose migration had ended. It
	// may be called only when no other copy can run.
	Resume(ctx context.Context) error

	// Release ends the hypervisor process of a VM that now runs elsewhere.
	Release(ctx context.Context) error

	Close() error
}

// Sink is the destination of a move: it loads a stream and stays paused. All
// methods are safe for concurrent use. Close lets go of the control
// connection and leaves the process alone.
type Sink interface {
	// Dial opens one connection to the waiting hypervisor. Call it only when
	// the source's first bytes are in hand, and for the main channel first
	// (hypervisor-wire.md, section 2).
	Dial(ctx context.Context) (net.Conn, error)

	Events() <-chan Event
	Progress(ctx context.Context) (Progress, error)
	State(ctx context.Context) (RunState, error)

	// Resume executes the VM. It may be called only after the commit.
	Resume(ctx context.Context) error

	// Announce makes the VM's NICs announce themselves to their LAN.
	Announce(ctx context.Context) error

	// Discard ends the process; the VM does not run here.
	Discard(ctx context.Context) error

	NICs() []NIC
	Close() error
}
