package guest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// patience with KVM: an ordinary kernel writes its first line within a second
// where KVM works.
const patience = 6 * time.Second

// Accel finds out whether KVM runs a guest here, by running one: /dev/kvm may
// open and still not work (nested machines). The answer is "kvm" or "tcg"; it
// is kept in the cache until the machine boots again.
func Accel(ctx context.Context, img Image) string {
	dev, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg"
	}
	dev.Close()
	kept := keptAnswer()
	if b, err := os.ReadFile(kept); err == nil && (string(b) == "kvm" || string(b) == "tcg") {
		return string(b)
	}
	answer := probeKVM(ctx, img)
	if ctx.Err() == nil && kept != "" {
		writeFile(kept, []byte(answer)) // else it is asked again
	}
	return answer
}

// keptAnswer is the file for this boot of the machine, or "".
func keptAnswer() string {
	dir, err := cacheDir()
	if err != nil {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "accel-"+strings.TrimSpace(string(boot)))
}

func probeKVM(ctx context.Context, img Image) string {
	dir, err := os.MkdirTemp("", "longhaul-kvm-")
	if err != nil {
		return "tcg"
	}
	defer os.RemoveAll(dir)
	o := Options{Name: "probe", Image: img, Console: filepath.Join(dir, "console")}
	vm, err := Start(ctx, o, nil, []string{
		"qemu-system-x86_64", "-accel", "kvm", "-cpu", "qemu64", "-machine", "q35", "-m", "128m", "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", img.Kernel, "-initrd", img.Initrd, "-append", "console=ttyS0 panic=-1 lh.fill=1",
		"-chardev", "file,id=console,path=" + o.Console, "-serial", "chardev:console",
	})
	if err != nil {
		return "tcg"
	}
	defer vm.Kill()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if vm.waitConsole(ctx, readyLine) != nil {
		return "tcg"
	}
	return "kvm"
}
