//go:build !linux

package guest

import "errors"

// lock is not supported here: guests of the lab run on Linux.
func lock(string) (func(), error) { return nil, errors.ErrUnsupported }
