package wanem

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Tap is one end of the WAN: a TAP device of the network namespace in which
// it was opened. The device is gone when the Tap is closed.
type Tap struct {
	file *os.File
	name string
}

// OpenTap makes the device called name in the network namespace of the calling
// OS thread. The caller brings it up, with an address, after that.
func OpenTap(name string) (*Tap, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the tun driver: %w", err)
	}
	if err := configureTap(fd, name); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making tap %s: %w", name, err)
	}
	return TapFromFile(os.NewFile(uintptr(fd), name)), nil
}

// TapFromFile takes a device that another process opened with OpenTap.
func TapFromFile(f *os.File) *Tap { return &Tap{file: f, name: f.Name()} }

// File of the device, to hand to another process. The Tap keeps it.
func (t *Tap) File() *os.File { return t.file }

// Name of the device.
func (t *Tap) Name() string { return t.name }

// Close removes the device.
func (t *Tap) Close() error { return t.file.Close() }

// offloadUDP is of linux/if_tun.h: many packets of UDP as one message.
const offloadUDP = 0x20 | 0x40 // TUN_F_USO4, TUN_F_USO6

// configureTap asks for unfinished checksums and, where the kernel has it (Linux
// 6.2), for UDP in messages of many packets; for nothing else that is larger than
// a packet.
func configureTap(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	size := int32(virtioHeader)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETVNETHDRSZ, uintptr(unsafe.Pointer(&size))); e != 0 {
		return e
	}
	if joinsUDP(fd) {
		return nil
	}
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
}

// joinsUDP asks for UDP in messages of many packets, and tells whether the kernel has them.
func joinsUDP(fd int) bool {
	return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|offloadUDP) == nil
}
