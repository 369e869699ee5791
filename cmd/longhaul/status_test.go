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
