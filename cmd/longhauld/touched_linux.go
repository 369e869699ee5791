package main

import (
	"io/fs"
	"syscall"
	"time"
)

// touched is when the kernel last noted a change of a file or of its permissions. Unlike
// the time of its content it cannot be set, to the future say.
func touched(st fs.FileInfo) time.Time {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return time.Time{}
}
