package main

import (
	"strings"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
)

// TestStatusTellsOfTCP: an operator sees why TCP carries a link.
func TestStatusTellsOfTCP(t *testing.T) {
	var b strings.Builder
	err := writeStatus(&b, gateway.Status{Peers: []gateway.PeerStatus{{
		Site: "b", Alive: true, Carrier: "tcp", Fallback: "QUIC does not get through (timeout); tried again in 40s",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nb is reached by TCP: QUIC does not get through (timeout); tried again in 40s\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("%s\nwant %q at the end", b.String(), want)
	}
}

// TestStatusTellsOfController: an operator sees what runs, and why it is not ours.
func TestStatusTellsOfController(t *testing.T) {
	for _, tt := range []struct{ controller, want string }{
		{"path model, automatic", "path model, automatic"},
		{"newreno x16: quic-go has changed", "\nthe link to b has newreno x16 in place of our congestion control, " +
			"and is slow where packets are lost: quic-go has changed\n"},
	} {
		var b strings.Builder
		if err := writeStatus(&b, gateway.Status{Peers: []gateway.PeerStatus{{Site: "b", Controller: tt.controller}}}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), tt.want) {
			t.Errorf("%s\nwant %q", b.String(), tt.want)
		}
	}
}

// TestStatusTellsOfTheFarEnd: what is not as it should be at the other end is seen here, too.
func TestStatusTellsOfTheFarEnd(t *testing.T) {
	for _, tt := range []struct {
		peer gateway.PeerStatus
		want string // at the end
	}{
		{gateway.PeerStatus{Site: "b", Alive: true, Carrier: "tcp", FarFallback: "timeout"}, "\nb reaches us by TCP: QUIC does not get through from there (timeout)\n"},
		{gateway.PeerStatus{Site: "b", Alive: true, FarController: "newreno x16: quic-go has changed"},
			"\nthe link from b has newreno x16 in place of our congestion control, and is slow where packets are lost: quic-go has changed\n"},
	} {
		var b strings.Builder
		if err := writeStatus(&b, gateway.Status{Peers: []gateway.PeerStatus{tt.peer}}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(b.String(), tt.want) {
			t.Errorf("%s\nwant %q at the end", b.String(), tt.want)
		}
	}
}

// TestStatusTellsOfPaths: an operator sees which path is down, and why.
func TestStatusTellsOfPaths(t *testing.T) {
	var b strings.Builder
	err := writeStatus(&b, gateway.Status{Peers: []gateway.PeerStatus{{Site: "b", Alive: true, Paths: []gateway.Path{
		{Name: "mpls", Alive: true, Urgent: true}, {Name: "dsl", Why: "timeout: no recent network activity"},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" up, urgent ", "\npath dsl to b is down: timeout: no recent network activity\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nwant %q", b.String(), want)
		}
	}
}

// TestStatusTellsOfDrops: what is lost at the gateway itself is shown, and a clean
// one is not blamed.
func TestStatusTellsOfDrops(t *testing.T) {
	st := gateway.Status{Peers: []gateway.PeerStatus{{Site: "b"}, {Site: "c"}}}
	var clean strings.Builder
	if err := writeStatus(&clean, st); err != nil || strings.Contains(clean.String(), "lost") {
		t.Errorf("%v; without drops:\n%s", err, clean.String())
	}
	st.Peers[0].Drops = gateway.LinkDrops{SendQueue: 1, ReceiveQueue: 2, Unsendable: 4, Socket: 8, Busy: 16}
	st.Drops = gateway.PortDrops{Packets: 32, Refused: 64}
	var b strings.Builder
	if err := writeStatus(&b, st); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nlost here of the link to b: 8 packets at a full socket, 16 reads of a busy connection, 3 datagrams in full queues, 4 that could not be sent\n",
		"\nlost at the listening port: 32 packets at a full socket, 64 connections of strangers refused\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nwant %q", b.String(), want)
		}
	}
}
