package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Check tells what a lab with a guest lacks on this machine: root, the TUN
// driver, or programs, with the Debian packages that have them.
func Check() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("it makes network namespaces and needs root"))
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		errs = append(errs, fmt.Errorf("it needs TAP devices: %w", err))
	}
	var missing []string
	for _, need := range [][2]string{
		{"ip", "iproute2"}, {"qemu-system-x86_64", "qemu-system-x86"}, {"busybox", "busybox-static"}, {"apt-get", "apt"}, {"dpkg", "dpkg"},
	} {
		if _, err := exec.LookPath(need[0]); err != nil {
			missing = append(missing, need[1])
		}
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("it needs programs; run: apt-get install --no-install-recommends %s", strings.Join(missing, " ")))
	}
	return errors.Join(errs...)
}
