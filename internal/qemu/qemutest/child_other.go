//go:build !linux

package qemutest

import "syscall"

// endWithParent is only possible on Linux; elsewhere Cleanup has to do.
func endWithParent() *syscall.SysProcAttr { return nil }
