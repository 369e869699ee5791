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
package guest
