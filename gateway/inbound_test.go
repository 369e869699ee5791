package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWaitForMain: what must not be first waits for the main connection; behind
// a forward not for ever.
func TestWaitForMain(t *testing.T) {
	for _, tt := range []struct {
		name           string
		patience, main time.Duration // main: when the main connection opens; 0 is never
		took           time.Duration
		err            string
	}{
		{"it opens", mainPatience, time.Second, time.Second, ""},
		{"a forward without one", mainPatience, 0, mainPatience, "no main connection has come within 30s"},
		{"a move waits", 0, 10 * time.Minute, 10 * time.Minute, ""},
		{"a move that ends", 0, 0, time.Hour, "the move has ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("the move has ended"))
				defer cancel()
				s := newSession(newToken(), nil, nil, slog.New(slog.DiscardHandler))
				if tt.main > 0 {
					time.AfterFunc(tt.main, s.opened)
				}
				dialed := false
				in := &inbound{s: s, patience: tt.patience, dial: func(context.Context) (net.Conn, error) {
					dialed = true
					c, _ := net.Pipe()
					return c, nil
				}}
				began := time.Now()
				err := in.connect(ctx, make(chan net.Conn, 1))
				if got := time.Since(began); got != tt.took || dialed != (tt.err == "") {
					t.Errorf("%v after %v, dialed %v; want %v", err, got, dialed, tt.took)
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v; want %q", err, tt.err)
				}
			})
		})
	}
}
