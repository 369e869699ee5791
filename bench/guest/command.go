package guest

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
)

// Options of one guest. Name, Image, QMP and Console are needed.
type Options struct {
	Name string // of the VM, and of its tap unless Tap is set
	UUID string // empty means none
	Image

	// Memory in bytes. Zero means 256 MiB. Without KVM, 8 KiB are added to
	// a multiple of 256 KiB (facts/lab.md).
	Memory int64
	CPUs   int    // zero means 1
	Accel  string // "kvm" or "tcg"; empty means tcg

	QMP     string // path of the QMP socket
	Watch   string // path of a second one, for an observer; empty means none
	Console string // path of the file that gets the console; appended to

	Tap string       // existing tap; empty means Name
	MAC string       // empty means a locally administered address made of Name
	IP  netip.Prefix // address with the length of the LAN's prefix
	MTU int          // zero means 1500

	Disk    string // path of a raw disk image; empty means none
	Locking bool   // let QEMU lock the image; off because two sites share it

	Seed uint64 // of all content; zero means 1
	Fill int    // per cent of free memory to fill; zero means 85
	Hard bool   // all content is random and cannot be reduced
	Rate int    // pages to rewrite each second from the start
}

// DefaultMemory of a guest in bytes.
const DefaultMemory = 256 << 20

// Command is the command line of QEMU for the source of a move.
func Command(o Options) []string {
	args := []string{
		"qemu-system-x86_64", "-name", o.Name,
		"-machine", "q35", "-cpu", "qemu64", "-smp", strconv.Itoa(cmp.Or(o.CPUs, 1)),
		"-m", strconv.FormatInt(o.memory()>>10, 10) + "k",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", o.Kernel, "-initrd", o.Initrd, "-append", o.cmdline(),
		"-qmp", "unix:" + o.QMP + ",server=on,wait=off",
		"-chardev", "file,id=console,append=on,path=" + o.Console, "-serial", "chardev:console",
		"-netdev", "tap,id=net0,script=no,downscript=no,ifname=" + o.TapName(),
		"-device", "virtio-net-pci,netdev=net0,romfile=,mac=" + o.HardwareAddr(),
	}
	if o.Watch != "" {
		args = append(args, "-qmp", "unix:"+o.Watch+",server=on,wait=off")
	}
	if o.UUID != "" {
		args = append(args, "-uuid", o.UUID)
	}
	if o.Accel == "kvm" {
		args = append(args, "-accel", "kvm")
	} else {
		args = append(args, "-accel", "tcg,thread=multi,tb-size=64")
	}
	if o.Disk != "" {
		locking := "off"
		if o.Locking {
			locking = "on"
		}
		args = append(args,
			"-blockdev", "driver=file,node-name=disk0-file,locking="+locking+",filename="+o.Disk,
			"-blockdev", "driver=raw,node-name=disk0,file=disk0-file",
			"-device", "virtio-blk-pci,drive=disk0")
	}
	return args
}

// IncomingCommand is the command line of QEMU for the destination: it waits
// for migrate-incoming and stays paused after it.
func IncomingCommand(o Options) []string {
	return append(Command(o), "-incoming", "defer", "-S")
}

// TapName is the tap that the guest's NIC is attached to.
func (o Options) TapName() string { return cmp.Or(o.Tap, o.Name) }

// HardwareAddr is the MAC of the guest's NIC.
func (o Options) HardwareAddr() string {
	if o.MAC != "" {
		return o.MAC
	}
	h := uint32(2166136261) // FNV-1a
	for _, c := range []byte(o.Name) {
		h = (h ^ uint32(c)) * 16777619
	}
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", byte(h>>16), byte(h>>8), byte(h))
}

func (o Options) memory() int64 {
	n := cmp.Or(o.Memory, DefaultMemory) &^ (8<<10 - 1)
	if o.Accel != "kvm" && n%(256<<10) == 0 {
		n += 8 << 10
	}
	return n
}

func (o Options) cmdline() string {
	line := fmt.Sprintf("console=ttyS0 quiet panic=-1 lh.seed=%d lh.fill=%d lh.rate=%d lh.mtu=%d",
		cmp.Or(o.Seed, 1), cmp.Or(o.Fill, 85), o.Rate, cmp.Or(o.MTU, 1500))
	if o.Hard {
		line += " lh.hard=true"
	}
	if o.IP.IsValid() {
		line += " lh.ip=" + o.IP.String()
	}
	return line
}
