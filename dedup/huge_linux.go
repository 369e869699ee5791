package dedup

import (
	"reflect"

	"golang.org/x/sys/unix"
)

// hugePage is the size in bytes of a huge page, and of what such a page is aligned to.
const hugePage = 2 << 20

// huge asks the kernel to bring the memory of b, which nobody has touched yet, in huge
// pages: a store is filled at the speed of a stream, and a fault for each 4 KiB is a sixth
// of the time of a cold one; its tables are read at random. Many distributions leave it to
// programs to ask (transparent_hugepage=madvise; madvise(2), MADV_HUGEPAGE). QEMU asks for
// the guest's memory, too.
//
// A huge page that b begins or ends in has something else in it as well: the heap goes on
// there, for Go's arenas are aligned to more. A kernel that says no is as good as none.
func huge[T any](b []T) {
	v := reflect.ValueOf(b)
	first := v.Pointer() &^ (hugePage - 1)
	end := (v.Pointer() + uintptr(len(b))*v.Type().Elem().Size() + hugePage - 1) &^ (hugePage - 1)
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, first, end-first, unix.MADV_HUGEPAGE)
}
