package libvirt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
	"github.com/longhaul-project/longhaul/bench/lab"
)

const (
	domain   = "db1"
	memory   = 128 // MiB, as libvirt knows it
	diskSize = 16 << 20
	mac      = "52:54:00:6c:68:01"
	diskPath = "/var/lib/libvirt/images/db1.raw" // on each site's machine
	console  = "/var/log/db1.console"            // likewise
)

// domainXML is the guest of bench/guest, booted directly.
const domainXML = `<domain type='qemu'>
  <name>{{.Name}}</name>
  <uuid>6c6f6e67-6861-4c00-8000-000000000001</uuid>
  <memory unit='MiB'>{{.Memory}}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{{.Kernel}}</kernel>
    <initrd>{{.Initrd}}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 lh.seed=11 lh.fill=80 lh.rate=0 lh.mtu=1500 lh.ip={{.IP}}/24</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>64</tb-cache></tcg></features>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>{{.Emulator}}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='{{.Disk}}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='{{.MAC}}'/>
      <target dev='{{.Name}}' managed='no'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <serial type='file'><source path='{{.Console}}' append='on'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
`

// emulator adds 8 KiB to the guest's memory, which libvirt gives in MiB: see
// facts/lab.md, "Guests", for what QEMU 7.2 does otherwise without KVM.
const emulator = `#!/bin/sh
before= n=$#
while [ $n -gt 0 ]; do
  arg=$1; shift; n=$((n-1))
  case "$before $arg" in
    "-m "*)                      new=%[1]dk ;;
    "-object "*'"id":"pc.ram"'*) new=$(printf %%s "$arg" | sed 's/"size":%[2]d/"size":%[3]d/') ;;
    *)                           new=$arg ;;
  esac
  before=$arg
  set -- "$@" "$new"
done
exec qemu-system-x86_64 "$@"
`

// prepareDomain makes the files of the domain at both sites and returns its XML.
func prepareDomain(t *testing.T, ctx context.Context, l *lab.Lab, hosts []*host) string {
	t.Helper()
	img, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(l.Dir, "qemu-8k")
	text := fmt.Sprintf(emulator, memory<<10+8, memory<<20, memory<<20+8<<10)
	if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if err := h.Tap(domain, 1500); err != nil {
			t.Fatal(err)
		}
		h.makeDisk(t)
	}
	var xml strings.Builder
	err = template.Must(template.New("").Parse(domainXML)).Execute(&xml, map[string]any{
		"Name": domain, "Memory": memory, "Kernel": img.Kernel, "Initrd": img.Initrd, "IP": lab.GuestIP,
		"Emulator": wrapper, "Disk": diskPath, "MAC": mac, "Console": console,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.Dir, "domain.xml")
	if err := os.WriteFile(path, []byte(xml.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeDisk makes the site's own, empty image: a move fills it.
func (h *host) makeDisk(t *testing.T) {
	t.Helper()
	f, err := os.Create(h.machine(diskPath))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// boot starts the domain at a site and lets it work.
func boot(t *testing.T, ctx context.Context, l *lab.Lab, h *host, xml string) *guest.Client {
	t.Helper()
	if _, err := h.virsh(ctx, "create", xml); err != nil {
		t.Fatal(err)
	}
	vm := guest.VM{Options: guest.Options{Console: h.machine(console)}}
	if err := vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	ask, err := l.Control(ctx, lab.GuestIP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ask.Close() })
	if err := ask.SetDirty(ctx, control.Dirty{Rate: 200, Hot: 2000, Sparse: 75, Disk: 20}); err != nil {
		t.Fatal(err)
	}
	return ask
}
