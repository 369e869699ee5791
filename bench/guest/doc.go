// Package guest makes and drives a small virtual machine that proves its
// memory, its disk and its connections.
//
// The guest is Debian's cloud kernel, busybox for a start script, and one
// static program (bench/guest/workload) that
//   - fills a large share of memory with pages whose content is a pure function
//     of seed, index and version (bench/guest/pages), and keeps a journal of
//     the versions that is itself checked;
//   - rewrites pages at a set rate, wholly or sparsely;
//   - does the same with its disk;
//   - checks everything when asked, and tells lost, stale, swapped and torn
//     pages apart;
//   - counts its heartbeats and signs its disk with them, so that a second
//     copy that executes is noticed;
//   - serves a session of ticks and echoes on TCP port 7, which must survive a
//     move, and requests on port 7000 (bench/guest/control).
//
// [Build] makes kernel and initramfs on this machine, once: apt-get fetches the
// kernel, debian's dpkg unpacks it, and `go build` compiles the workload from
// sources that are embedded here, so that an installed binary needs a Go tool
// but no source tree. The result is cached in $LONGHAUL_CACHE, or else in
// longhaul/ of the user's cache directory.
//
// Without KVM a guest is ready in 3 to 6 seconds. Its memory must not be a
// multiple of 256 KiB there: QEMU before 8.2.2 loses dirty pages of such
// guests (facts/lab.md), so [Options] adds 8 KiB.
//
// That does not cure all of it. In QEMU 7.2 notdirty_write (accel/tcg/cputlb.c) marks
// a page dirty, sees that it is, and tells the TLB to write to it straight from now
// on. Where the host takes the processor away between the last two, and a round of
// the migration begins meanwhile, the page is clean and is written to unseen: it
// arrives one or two writes behind, by QEMU's own migration over TCP as well. With a
// pause of 20 ms put there, once in ten such writes, that came after 16 moves; without
// one, on a machine at load 8, after 97; and with Debian's own build the guest's kernel
// panicked after 58. KVM logs writes in hardware and has no such place. So a single
// page behind, once, on a busy machine without KVM, is no proof against Longhaul. It
// may be one of the journal: then the pages whose latest writes it lacks are called
// torn, as they are ahead of it.
package guest
