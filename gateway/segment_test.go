package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/longhaul-project/longhaul/l2ext"
	"github.com/longhaul-project/longhaul/l2ext/l2exttest"
)

func TestSegmentPolicy(t *testing.T) {
	got, err := SegmentPolicy{
		Home: "a", Gateway: "anycast", GatewayMAC: "02:00:00:00:00:fe", GatewayIPs: []string{"10.0.0.1", "fd00::1"},
		HostRoute: []string{"/bin/true"}, Unknown: "limited", Multicast: "flood", RouterAdverts: "carry", DHCP: "local", FHRP: "carry", Streams: "off",
		Limits: SegmentLimits{Resolve: 1, Broadcast: 2, Multicast: 3, Unknown: 4},
	}.Policy()
	if err != nil {
		t.Fatal(err)
	}
	want := l2ext.Policy{
		Home: "a", HostRoutes: true, Gateway: l2ext.GatewayAnycast, GatewayMAC: l2ext.MAC{2, 0, 0, 0, 0, 0xfe},
		GatewayIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Unknown:    l2ext.UnknownLimited, Multicast: l2ext.MulticastFlood, RouterAdverts: l2ext.Cross, DHCP: l2ext.Local, FHRP: l2ext.Cross, Streams: l2ext.StreamsOff,
		Limits: l2ext.Limits{Resolve: 1, Broadcast: 2, Multicast: 3, Unknown: 4},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	for _, p := range []SegmentPolicy{
		{Gateway: "x"}, {Streams: "x"}, {GatewayMAC: "02"}, {GatewayIPs: []string{"10.0.0"}}, {HostRoute: []string{"/bin/true"}}, {Limits: SegmentLimits{Resolve: -1}},
	} {
		if err := p.Check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// TestMovesAreLogged: of an evacuation each VM is in the log that has trouble with its network.
func TestMovesAreLogged(t *testing.T) {
	const vms = 200
	var log bytes.Buffer
	l, err := NewLayer2(Layer2Config{Site: "a", Host: l2exttest.NewHost(), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for i := range vms {
		l.do("flip", fmt.Sprint("job", i), func(context.Context) error { return errors.New("too late") })
		l.nics([]NIC{{MAC: fmt.Sprint("mac", i)}})
	}
	for _, line := range []string{"network of a move", "has no Ethernet address"} {
		if n := strings.Count(log.String(), line); n != vms {
			t.Errorf("%q: %d lines of %d VMs", line, n, vms)
		}
	}
}

// TestHostRouteCommand has a command write down how it is called.
func TestHostRouteCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "calls")
	l := &Layer2{log: slog.New(slog.DiscardHandler), hooks: map[string][]string{
		"prod": {"/bin/sh", "-c", `echo "$@" >> "$0"`, file, "-q"},
		"bad":  {"/bin/sh", "-c", "echo no way; exit 3"},
	}}
	r := l2ext.HostRoute{Segment: "prod", MAC: l2ext.MAC{0x52, 0x54, 0, 0, 0, 9}, IP: netip.MustParseAddr("10.0.0.9")}
	for _, what := range []string{"arrive", "depart"} {
		if _, err := l.route(t.Context(), what, r); err != nil {
			t.Error(err)
		}
	}
	got, err := os.ReadFile(file)
	if want := "-q arrive prod 52:54:00:00:00:09 10.0.0.9\n-q depart prod 52:54:00:00:00:09 10.0.0.9\n"; string(got) != want {
		t.Errorf("called with %q, %v", got, err)
	}
	r.Segment = "bad"
	if _, err := l.route(t.Context(), "arrive", r); err == nil {
		t.Error("a command that fails is no error")
	} else {
		t.Log(err)
	}
	r.Segment = "other"
	if _, err := l.route(t.Context(), "arrive", r); err != nil {
		t.Errorf("no command: %v", err)
	}
}
