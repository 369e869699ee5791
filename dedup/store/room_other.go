//go:build !linux

package store

import "errors"

func room(string) (free, size int64, err error) { return 0, 0, errors.ErrUnsupported }
