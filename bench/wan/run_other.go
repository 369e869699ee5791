//go:build !linux

package wan

import (
	"context"
	"errors"
)

// measure: only Linux has network namespaces.
func measure(context.Context, Row, Peer, Options, *Result) error { return errors.ErrUnsupported }
