// Package libvirt tests that virsh moves a VM through forwards: two real
// libvirtd, one at each site of a lab, and nothing between the sites but the
// gateways' one UDP port. The commands in the README's "With virsh, or by hand"
// are the ones that are run here.
//
// Each site has its own view of /run, /var and /etc/libvirt (site_linux_test.go),
// as two hosts would, so the VM's files have the same path at both:
//
//	site a                                          site b
//	virsh ── qemu+unix://?socket=libvirt.sock ─┐ ┌─ /run/libvirt/libvirt-sock
//	QEMU ─── RAM  tcp 49300, or ram.sock ──────┤ ├─ QEMU, same address
//	QEMU ─── disk tcp 49301, or disk.sock ─────┘ └─ QEMU, same address
//	                        longhauld ═══ UDP ═══ longhauld
package libvirt
