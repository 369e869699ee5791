//go:build !linux

package hostnet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/longhaul-project/longhaul/l2ext"
)

// Net is the network of this machine, which cannot be changed here.
type Net struct{}

var _ l2ext.Host = (*Net)(nil)

// New fails: this system has no VXLAN devices.
func New(Config) (*Net, error) { return nil, errors.ErrUnsupported }

// Examine fails: there is nothing to look at on this system.
func Examine(context.Context) ([]error, error) { return nil, errors.ErrUnsupported }

// Cleanup fails: nothing can have been made on this system.
func Cleanup(context.Context, *slog.Logger) error { return errors.ErrUnsupported }

// CleanupIn fails: nothing can have been made on this system.
func CleanupIn(context.Context, Config) error { return errors.ErrUnsupported }

// Apply fails here.
func (n *Net) Apply(context.Context, []l2ext.Wish) ([]l2ext.Attached, error) {
	return nil, errors.ErrUnsupported
}

// Point fails here.
func (n *Net) Point(uint32, []l2ext.Entry) error { return errors.ErrUnsupported }

// Watch fails here.
func (n *Net) Watch(context.Context, func(l2ext.Sighting)) error { return errors.ErrUnsupported }

// Mute fails here.
func (n *Net) Mute(string) error { return errors.ErrUnsupported }

// Unmute fails here.
func (n *Net) Unmute(string) error { return errors.ErrUnsupported }

// Heard has heard nobody.
func (n *Net) Heard(uint32, l2ext.MAC) (time.Duration, bool) { return 0, false }

// PortSegments finds nothing here.
func (n *Net) PortSegments(string) []uint32 { return nil }

// Traffic knows of none here.
func (n *Net) Traffic(uint32) (l2ext.Traffic, bool) { return l2ext.Traffic{}, false }

// Capture fails here.
func (n *Net) Capture(context.Context, uint32, l2ext.CaptureOptions, func(l2ext.Captured) error) (uint64, error) {
	return 0, errors.ErrUnsupported
}

// ReadPacket fails here.
func (n *Net) ReadPacket([]byte) (int, error) { return 0, errors.ErrUnsupported }

// WritePacket fails here.
func (n *Net) WritePacket([]byte) error { return errors.ErrUnsupported }

// Close does nothing here.
func (n *Net) Close() error { return nil }
