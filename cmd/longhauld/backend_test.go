package main

import (
	"errors"
	"testing"

	"github.com/longhaul-project/longhaul/gateway"
)

// TestNoCommandsByAPI: the API's users are not all root, and the gateway is.
func TestNoCommandsByAPI(t *testing.T) {
	s := gateway.Segment{Name: "prod", VNI: 1, Bridge: "br", Policy: gateway.SegmentPolicy{Home: "b", HostRoute: []string{"/bin/true"}}}
	if _, err := (&backend{}).AddSegment(t.Context(), s); !errors.Is(err, gateway.ErrInvalid) {
		t.Errorf("a command of an API client was taken: %v", err)
	}
}
