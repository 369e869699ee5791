package libvirt_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/cmd/longhaul/pair"
	"github.com/longhaul-project/longhaul/gateway"
)

// A way is what leads from one site to the other: the addresses to give to
// virsh at the source. QEMU at the destination listens on the very address that
// QEMU at the source connects to, so the two directions have different ones.
type way struct {
	control string // a TCP port, to libvirtd's own there
	ram     string // TCP ports, the same at both ends
	disk    string
}

func wayTo(site string) way {
	if site == "a" {
		return way{control: "16511", ram: "49302", disk: "49303"}
	}
	return way{control: "16510", ram: "49300", disk: "49301"}
}

// Names of forwards.
const (
	controlTCP, ramTCP, diskTCP    = "control-tcp", "ram-tcp", "disk-tcp"
	controlUnix, ramUnix, diskUnix = "control-unix", "ram-unix", "disk-unix"
)

// forwards are the ways to the other site, as the config of a gateway has them.
func forwards(from, to *host) string {
	w := wayTo(to.Name)
	here, there := filepath.Join(from.Dir, "run", "forward"), filepath.Join(to.Dir, "run", "forward")
	var b strings.Builder
	b.WriteString("forwards:\n")
	add := func(name, kind, listen, target string) {
		fmt.Fprintf(&b, "  - {name: %s, kind: %s, to: %s, listen: %q, target: %q}\n", name, kind, to.Name, listen, target)
	}
	add(controlTCP, "tcp", "tcp:127.0.0.1:"+w.control, "tcp:127.0.0.1:16509")
	add(ramTCP, "migration", "tcp:127.0.0.1:"+w.ram, "tcp:127.0.0.1:"+w.ram)
	add(diskTCP, "tcp", "tcp:127.0.0.1:"+w.disk, "tcp:127.0.0.1:"+w.disk)
	socket := to.machine("run/libvirt/libvirt-sock")
	add(controlUnix, "tcp", "unix:"+here+"/"+to.Name+"-libvirt.sock", "unix:"+socket)
	add(ramUnix, "auto", "unix:"+here+"/"+to.Name+"-ram.sock", "unix:"+there+"/"+to.Name+"-ram.sock")
	add(diskUnix, "auto", "unix:"+here+"/"+to.Name+"-disk.sock", "unix:"+there+"/"+to.Name+"-disk.sock")
	fmt.Fprintf(&b, "forward_allow: [\"tcp:localhost:*\", \"unix:%s/\", \"unix:%s\"]\n", here, from.machine("run/libvirt/libvirt-sock"))
	return b.String()
}

// forwardsOf are the forwards of a site by name.
type forwardsOf map[string]gateway.Forward

// counts asks the gateway of a site what its forwards have carried.
func counts(t *testing.T, ctx context.Context, p *pair.Pair, h *host) forwardsOf {
	t.Helper()
	all, err := p.API(h.Site).Forwards(ctx)
	if err != nil {
		t.Fatal(err)
	}
	named := forwardsOf{}
	for _, f := range all {
		if f.Problem != "" && !strings.HasPrefix(f.Problem, "the last connection: ") { // of a move that was aborted; judge allows none
			t.Errorf("forward %s of site %s: %s", f.Name, h.Name, f.Problem)
		}
		named[f.Name] = f
	}
	return named
}
