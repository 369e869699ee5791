//go:build !linux

package demo

import (
	"context"
	"errors"
	"fmt"
)

// Run needs Linux: network namespaces, TAP devices, QEMU.
func Run(context.Context, Options) error {
	return fmt.Errorf("the demo: %w", errors.ErrUnsupported)
}
