// Package streams records the migration streams that the reduction benchmark
// (bench/reduction) reduces, from guests of its own:
//
//	deb1         a Debian server that has booted: systemd, redis, nginx, postgresql
//	deb1-disk    its disk at that moment, as QEMU copies it to another one
//	deb1-calm    the same VM after ten minutes of work, over many rounds, working on
//	deb1-back    the same after four times as much work
//	deb2         another server of the same installation with its own name, keys and data
//	sparse       a small guest whose pages are rewritten a few words at a time, many rounds
//
// The files are plain precopy streams, as QEMU writes them into a file, or that of an
// NBD client, and live in a cache (see [Dir]), never in git. [Record] makes those that are missing:
//
//	rootfs.go    debootstrap from the mirror that apt is configured with, once; an
//	             ext4 image for each guest, which differ in a few files
//	debian/      what is put into the guests: a unit and the script that does the work
//	vm.go        one QEMU with its monitor and a line to the guest's script
//	mirror.go    what an NBD client says that copies an image
//	capture.go   a migration into a file: how many rounds, how slow
//	record.go    the order of it all
//
// A Debian server without KVM boots in about a minute and fills its services in
// two or three; all streams take about 40 minutes. Both streams after work begin
// where deb1 was recorded, from that stream and its disk, which is kept: either can
// be recorded again by itself, in 12 minutes. [Options.Short] works
// one minute instead of ten, to try it. The guests' data follows from seeds,
// but time and scheduling do not, so two recordings are alike and not equal.
//
// The work of deb1-calm is as much as that of the guest in facts/reduction.md,
// as far as it is known: what it leaves behind, as zstd --long sees it (guests.go).
//
// It needs root (chroot), debootstrap, e2fsprogs and QEMU. Guests have 8 KiB
// more memory than a multiple of 256 KiB: without it, QEMU before 8.2.2 loses
// dirty pages (facts/lab.md).
package streams
