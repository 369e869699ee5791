//go:build unix

package store

import (
	"os"
	"syscall"
)

// flock takes a lock that the kernel lets go of when the process ends.
func flock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
