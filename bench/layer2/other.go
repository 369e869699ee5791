//go:build !linux

package layer2

import (
	"context"
	"errors"
	"io"
	"time"
)

// Options of a run, which needs Linux.
type Options struct {
	Time              time.Duration
	Seed              uint64
	Emulator, Gateway []string
	Wireguard         string
}

// ServeGateway fails: this system has no network namespaces.
func ServeGateway(io.Reader, io.Writer) error { return errors.ErrUnsupported }

// Run fails: this system has no network namespaces.
func Run(context.Context, []Row, []Mode, Options, func(Result)) error { return errors.ErrUnsupported }

// Storm fails: this system has no network namespaces.
func Storm(context.Context, Mode, Options) (StormResult, error) {
	return StormResult{}, errors.ErrUnsupported
}
