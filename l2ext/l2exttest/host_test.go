package l2exttest

import "testing"

func TestHost(t *testing.T) {
	Suite(t, func(t *testing.T) Fixture {
		h := NewHost()
		t.Cleanup(func() { h.Close() })
		return Fixture{Host: h, AddBridge: h.AddBridge, Plug: h.Plug, Send: h.Send, Receive: h.Receive, State: h.String}
	})
}
