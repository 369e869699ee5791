//go:build !linux

package wanem

import (
	"context"
	"errors"
	"io"
	"os"
)

// Serve is not supported here.
func Serve(io.Reader, io.Writer) error { return errors.ErrUnsupported }

// A Tap is one end of the WAN; only Linux has it.
type Tap struct{}

// OpenTap is not supported here.
func OpenTap(string) (*Tap, error) { return nil, errors.ErrUnsupported }

// TapFromFile is not supported here.
func TapFromFile(*os.File) *Tap { return nil }

// File is not supported here.
func (t *Tap) File() *os.File { return nil }

// Name is not supported here.
func (t *Tap) Name() string { return "" }

// Close does nothing.
func (t *Tap) Close() error { return nil }

// A WAN is not supported here.
type WAN struct{}

// New is not supported here.
func New(_, _ *Tap, _ Config) (*WAN, error) { return nil, errors.ErrUnsupported }

// Run is not supported here.
func (w *WAN) Run(context.Context) error { return errors.ErrUnsupported }

// Set is not supported here.
func (w *WAN) Set(Direction, Profile) error { return errors.ErrUnsupported }

// Cut is not supported here.
func (w *WAN) Cut(Direction) error { return errors.ErrUnsupported }

// Heal is not supported here.
func (w *WAN) Heal(Direction) error { return errors.ErrUnsupported }

// Counters is not supported here.
func (w *WAN) Counters(Direction) (Counters, error) { return Counters{}, errors.ErrUnsupported }
