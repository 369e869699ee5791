package libvirt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"text/template"

	"github.com/longhaul-project/longhaul/bench/guest"
	"github.com/longhaul-project/longhaul/bench/guest/control"
)

const (
	memory   = 128      // MiB, as libvirt knows it
	diskSize = 16 << 20 // bytes
)

// domain is a VM. Its tap has its name at both sites.
type domain struct {
	name string
	ip   string
	seed int
	ask  *guest.Client // over one TCP connection that lives through all moves
}

// disk is the path of the image on each site's machine, console that of the
// file that gets the console.
func (d *domain) disk() string    { return "/var/lib/libvirt/images/" + d.name + ".raw" }
func (d *domain) console() string { return "/var/log/" + d.name + ".console" }

// domainXML is the guest of bench/guest, booted directly.
const domainXML = `<domain type='qemu'>
  <name>{{.Name}}</name>
  <memory unit='MiB'>{{.Memory}}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{{.Kernel}}</kernel>
    <initrd>{{.Initrd}}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 lh.seed={{.Seed}} lh.fill=80 lh.rate=0 lh.mtu=1500 lh.ip={{.IP}}/24</cmdline>
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

// define makes the files of the domain at both sites and returns its XML.
func (w *world) define(t *testing.T, ctx context.Context, d *domain) (xml string) {
	t.Helper()
	img, err := guest.Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(w.lab.Dir, "qemu-8k")
	text := fmt.Sprintf(emulator, memory<<10+8, memory<<20, memory<<20+8<<10)
	if err := os.WriteFile(wrapper, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, h := range w.hosts {
		if err := h.Tap(d.name, 1500); err != nil {
			t.Fatal(err)
		}
		h.makeDisk(t, d)
	}
	xml = filepath.Join(w.lab.Dir, d.name+".xml")
	f, err := os.Create(xml)
	if err != nil {
		t.Fatal(err)
	}
	err = template.Must(template.New("").Parse(domainXML)).Execute(f, map[string]any{
		"Name": d.name, "Memory": memory, "Kernel": img.Kernel, "Initrd": img.Initrd, "IP": d.ip,
		"Emulator": wrapper, "Disk": d.disk(), "Console": d.console(), "Seed": d.seed,
	})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return xml
}

// makeDisk makes the site's own, empty image: a move fills it.
func (h *host) makeDisk(t *testing.T, d *domain) {
	t.Helper()
	f, err := os.Create(h.machine(d.disk()))
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// newDomain boots a VM at site a.
func (w *world) newDomain(t *testing.T, number int) *domain {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), setUpTime)
	defer cancel()
	d := &domain{name: fmt.Sprintf("db%d", number+1), ip: fmt.Sprintf("10.77.0.%d", 10+number), seed: 11 + number}
	w.boot(t, ctx, d, w.hosts[0])
	return d
}

// boot starts the domain at a site.
func (w *world) boot(t *testing.T, ctx context.Context, d *domain, h *host) {
	t.Helper()
	if _, err := h.virsh(ctx, "define", w.define(t, ctx, d)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.virsh(ctx, "start", d.name); err != nil {
		t.Fatal(err)
	}
	vm := guest.VM{Options: guest.Options{Console: h.machine(d.console())}}
	if err := vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.ask, err = w.lab.Control(ctx, d.ip); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.ask.Close() })
}

// work sets what the guest rewrites: a little, or so much of its memory that the
// line cannot keep up.
func (d *domain) work(t *testing.T, ctx context.Context, busy bool) {
	t.Helper()
	dirty := control.Dirty{Rate: 200, Hot: 2000, Sparse: 75, Disk: 20}
	if busy {
		dirty = control.Dirty{Rate: 4000}
	}
	if err := d.ask.SetDirty(ctx, dirty); err != nil {
		t.Fatal(err)
	}
}
