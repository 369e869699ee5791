package qmp

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseNetwork(t *testing.T) {
	text := "n1: index=0,type=user,net=10.0.2.0,restrict=off\r\n" +
		"e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n" +
		" \\ #net039: index=0,type=user,net=10.0.2.0,restrict=off\r\n" +
		"net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:AA:00:07\r\n" +
		" \\ hostnet0: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\n" +
		"net1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:08\r\n" +
		" \\ hostnet1: index=0,type=tap,fd=31\r\n" +
		"net2: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:09\r\n" +
		"hub 0\r\n \\ hub0port1: x: index=0,type=nic,macaddr=52:54:00:aa:00:0a\r\n"
	want := []NIC{
		{Name: "e1000.0", Model: "e1000", MAC: "52:54:00:12:34:56", Kind: "user"},
		{Name: "net0", Model: "virtio-net-pci", MAC: "52:54:00:aa:00:07", Kind: "tap", IfName: "tap0"},
		{Name: "net1", Model: "virtio-net-pci", MAC: "52:54:00:aa:00:08", Kind: "tap", FD: "31"},
		{Name: "net2", Model: "virtio-net-pci", MAC: "52:54:00:aa:00:09"},
	}
	if diff := cmp.Diff(want, parseNetwork(text)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n \\ n0: index=0,type=tap,ifname=tap0,script=no\r\n")
	f.Add(" \\ n0: index=0,type=tap\n")
	f.Add("a: type=nic\n \\ b: type=nic\n \\ c: type=nic\n")
	f.Fuzz(func(t *testing.T, text string) {
		if n := len(parseNetwork(text)); n > maxNICs {
			t.Errorf("%d NICs", n)
		}
	})
}
