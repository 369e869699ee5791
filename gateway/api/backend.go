package api

import (
	"context"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
)

// Backend is what the API needs of a gateway. All methods are safe for
// concurrent use and return soon after ctx is done. Errors wrap the sentinels
// of package gateway; what wraps none of them is shown as an internal error.
type Backend interface {
	Status(ctx context.Context) (gateway.Status, error)
	VMs(ctx context.Context) ([]gateway.VMInfo, error)

	// Migrate starts a move and returns as soon as the job exists. The move
	// outlives ctx. ErrNoVM, ErrNoSite, ErrBusy, ErrInvalid, ErrUnavailable.
	Migrate(ctx context.Context, r gateway.MigrateRequest) (gateway.Job, error)

	// Jobs lists the jobs that this gateway knows, the newest last.
	Jobs(ctx context.Context) ([]gateway.Job, error)
	Job(ctx context.Context, id string) (gateway.Job, error)

	// WatchJob sends the job as it is and then again after each change, until
	// it has ended or ctx is done; then it closes the channel. The API
	// takes from the channel at once and leaves out what its client is too slow for.
	WatchJob(ctx context.Context, id string) (<-chan gateway.JobEvent, error)

	// AbortJob asks a job to end with the VM at its source, and returns the
	// job as it then is; it may take a moment to end. ErrBusy: it is past
	// the point at which the VM can stay.
	AbortJob(ctx context.Context, id string) (gateway.Job, error)

	// RecoverJob ends a job in doubt by letting the VM run at one side;
	// where is RecoverSource or RecoverDestination. ErrBusy: it is not in doubt.
	RecoverJob(ctx context.Context, id, where string) (gateway.Job, error)

	// SetJobRate caps a move, in bits per second; 0 lifts the cap.
	SetJobRate(ctx context.Context, id string, bps int64) (gateway.Job, error)

	Forwards(ctx context.Context) ([]gateway.Forward, error)
	AddForward(ctx context.Context, f gateway.Forward) (gateway.Forward, error)
	RemoveForward(ctx context.Context, name string) error

	Segments(ctx context.Context) ([]gateway.Segment, error)
	Segment(ctx context.Context, name string) (gateway.Segment, error)
	AddSegment(ctx context.Context, s gateway.Segment) (gateway.Segment, error)
	RemoveSegment(ctx context.Context, name string) error

	// ClearMAC forgets, at all sites of a segment, that a MAC was claimed by
	// two of them in turn. ErrNotFound: there is no such segment or MAC. ErrUnavailable:
	// one at which it is frozen cannot be told.
	ClearMAC(ctx context.Context, segment, mac string) error

	// UnstretchSegment ends a segment at this site when no host depends on it,
	// or when it is forced.
	UnstretchSegment(ctx context.Context, name string, r gateway.UnstretchRequest) (gateway.Unstretched, error)

	// CaptureSegment writes the frames of a segment as a pcap file, until ctx
	// ends, write fails, or there are as many as were asked for. An error
	// before the first call of write is the client's to see.
	CaptureSegment(ctx context.Context, name string, r gateway.CaptureRequest, write func([]byte) error) error

	// StartLinkTest begins a test of the link to a site, which outlives ctx and
	// ends by itself within 15 s. ErrNoSite, ErrUnavailable, ErrBusy.
	StartLinkTest(ctx context.Context, site string) (gateway.LinkTest, error)
	// LinkTest is the newest test of that link. ErrNotFound.
	LinkTest(ctx context.Context, site string) (gateway.LinkTest, error)
	// StopLinkTest ends a test that runs. ErrNotFound.
	StopLinkTest(ctx context.Context, site string) error

	// Doctor looks at this gateway, its machine and its links.
	Doctor(ctx context.Context) (gateway.Checkup, error)

	// StoreReport tells what the content stores hold.
	StoreReport(ctx context.Context) (gateway.StoreReport, error)

	// Seed and VerifyStore start tasks on the store, which outlive ctx.
	// ErrUnavailable: there is no store on disk. ErrBusy: too many tasks.
	Seed(ctx context.Context, r gateway.SeedRequest) (gateway.StoreTask, error)
	VerifyStore(ctx context.Context) (gateway.StoreTask, error)

	// StoreTasks lists the tasks, the newest last.
	StoreTasks(ctx context.Context) ([]gateway.StoreTask, error)
	StoreTask(ctx context.Context, id string) (gateway.StoreTask, error)

	// AbortStoreTask asks a task to end; it may take a moment. ErrBusy: it has ended.
	AbortStoreTask(ctx context.Context, id string) (gateway.StoreTask, error)

	// CreateToken makes a join token for a gateway at site, which may be
	// used once and until it expires. ErrUnavailable: this gateway does not
	// hold the fleet's CA key.
	CreateToken(ctx context.Context, site string, ttl time.Duration) (token string, expires time.Time, err error)

	// Revoke shuts a site's gateways out for good.
	Revoke(ctx context.Context, site string) error

	// Reload reads the config file again and applies what can change while
	// the gateway runs. It returns the keys that differ and wait for a
	// restart. ErrInvalid: the file is wrong; nothing has changed.
	Reload(ctx context.Context) (restart []string, err error)
}

// Where RecoverJob lets the VM run.
const (
	RecoverSource      = "source"
	RecoverDestination = "destination"
)
