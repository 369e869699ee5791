package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/api/apitest"
	"github.com/longhaul-project/longhaul/gateway/api/client"
)

// flaky serves a fake gateway whose watches are cut n times after their first
// event.
func flaky(t *testing.T, n int) (*client.Client, *apitest.Fake) {
	t.Helper()
	fake := apitest.New()
	inner := api.New(api.Config{Backend: fake}).Handler()
	var cuts atomic.Int64
	cuts.Store(int64(n))
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") && cuts.Add(-1) >= 0 {
			job, err := fake.Job(r.Context(), "job-1")
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, "event: job\ndata: {\"job\":{\"id\":%q,\"state\":%q}}\n\n", job.ID, job.State)
			return
		}
		inner.ServeHTTP(w, r)
	})}
	ended := make(chan error, 1) // the one result of Serve
	go func() { ended <- srv.Serve(ln) }()
	c := client.New(path)
	t.Cleanup(func() { c.Close(); srv.Close(); <-ended })
	return c, fake
}

// A watch outlives a gateway that goes away, and says so once each time.
func TestWatchOutlivesGateway(t *testing.T) {
	c, fake := flaky(t, 3)
	if _, err := fake.Migrate(t.Context(), gateway.MigrateRequest{VM: "db1", To: "b"}); err != nil {
		t.Fatal(err)
	}
	var notes []string
	w := &watch{client: c, id: "job-1", pause: time.Millisecond, each: func(gateway.JobEvent) {},
		note: func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }}
	job, err := w.run(t.Context())
	if err != nil || job.State != gateway.JobDone {
		t.Errorf("%s, %v", job.State, err)
	}
	if len(notes) != 3 || !strings.Contains(notes[0], "lost the gateway") {
		t.Errorf("notes: %q", notes)
	}
}

// A job that nobody knows, and a gateway that was never there, end it at once.
func TestWatchEndsAtOnce(t *testing.T) {
	c, _ := flaky(t, 0)
	w := &watch{client: c, id: "none", each: func(gateway.JobEvent) {}, note: t.Logf}
	if _, err := w.run(t.Context()); !errors.Is(err, gateway.ErrNoJob) {
		t.Errorf("unknown job: %v", err)
	}
	w.client = client.New(filepath.Join(t.TempDir(), "none"))
	if _, err := w.run(t.Context()); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("no gateway: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.client = c
	if _, err := w.run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
