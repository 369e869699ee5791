package qmp

import (
	"context"
	"strings"
)

// A RxFilter is what a guest has told its NIC to receive.
type RxFilter struct {
	Name      string   `json:"name"`
	MAC       string   `json:"main-mac"`
	Promisc   bool     `json:"promiscuous"`
	Unicast   []string `json:"unicast-table"`
	Multicast []string `json:"multicast-table"`
}

// QueryRxFilter asks for the filters of those NICs that have one (virtio).
func (c *Client) QueryRxFilter(ctx context.Context) (list []RxFilter, err error) {
	err = c.Execute(ctx, "query-rx-filter", nil, &list)
	return list, err
}

// A NIC is a guest's network interface and what is behind it.
type NIC struct {
	Name   string // of the device
	Model  string
	MAC    string
	Kind   string // of the backend: "tap", "user", …; empty if there is none
	IfName string // of a tap that was opened by name
	FD     string // of a tap that was given as a descriptor of QEMU
}

// QueryNICs asks for the NICs, by the human monitor: QMP has no such command.
func (c *Client) QueryNICs(ctx context.Context) ([]NIC, error) {
	text, err := c.HumanMonitor(ctx, "info network")
	if err != nil {
		return nil, err
	}
	return parseNetwork(text), nil
}

// maxNICs bounds what a NIC list may hold; QEMU's own limit is far lower.
const maxNICs = 1024

// parseNetwork reads the text of "info network" (QEMU net/net.c, hmp_info_network):
//
//	virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56
//	 \ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no
//
// Backends without a NIC and hub ports stand alone; they are passed over.
func parseNetwork(text string) []NIC {
	var nics []NIC
	open := false // the line before was a NIC
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		backend := strings.HasPrefix(name, " \\ ")
		if !ok || (backend && !open) {
			open = false
			continue
		}
		fields := netFields(rest)
		if backend {
			n := &nics[len(nics)-1]
			n.Kind, n.IfName, n.FD = fields["type"], fields["ifname"], fields["fd"]
			open = false
			continue
		}
		if open = fields["type"] == "nic" && len(nics) < maxNICs; open {
			nics = append(nics, NIC{Name: name, Model: fields["model"], MAC: strings.ToLower(fields["macaddr"])})
		}
	}
	return nics
}

// netFields splits "index=0,type=nic,model=e1000". Of fields that come twice
// the first counts.
func netFields(s string) map[string]string {
	fields := make(map[string]string)
	for part := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(part, "=")
		if _, ok := fields[key]; !ok {
			fields[key] = value
		}
	}
	return fields
}
