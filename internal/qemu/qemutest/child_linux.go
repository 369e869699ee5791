package qemutest

import "syscall"

// endWithParent makes a process end when the test does, even if the test is
// killed.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
