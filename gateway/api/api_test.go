package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/api/apitest"
	"github.com/longhaul-project/longhaul/gateway/api/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ api.Backend = (*apitest.Fake)(nil)

// serve runs a server on a real socket and gives a client of it.
func serve(t *testing.T, b api.Backend) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := api.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1) // the one result of Run
	reg := prometheus.NewRegistry()
	s := api.New(api.Config{Backend: b, Gatherer: reg, Registerer: reg})
	go func() { ended <- s.Run(ctx, ln) }()
	c := client.New(path)
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

func TestRoundTrip(t *testing.T) {
	fake := apitest.New()
	c := serve(t, fake)
	ctx := t.Context()

	st, err := c.Status(ctx)
	want, _ := fake.Status(ctx)
	if err != nil || !cmp.Equal(st, want) {
		t.Errorf("status: %v\n%s", err, cmp.Diff(st, want))
	}
	vms, err := c.VMs(ctx)
	if err != nil || len(vms) != 7 || vms[1].Name != "db1" {
		t.Errorf("VMs: %v, %v", vms, err)
	}
	job, err := c.Migrate(ctx, gateway.MigrateRequest{VM: "stuck", To: "b", Rate: 5e6, Downtime: 200})
	if err != nil || job.ID != "job-1" || job.Request.Rate != 5e6 {
		t.Fatalf("migrate: %+v, %v", job, err)
	}
	if job, err = c.SetJobRate(ctx, job.ID, 7e6); err != nil || job.Progress.RateCap != 7e6 {
		t.Errorf("set rate: %+v, %v", job.Progress, err)
	}
	if job, err = c.AbortJob(ctx, job.ID); err != nil || job.State != gateway.JobAborted {
		t.Errorf("abort: %v, %v", job.State, err)
	}
	fwd := gateway.Forward{Name: "mig", Listen: "tcp:127.0.0.1:49300", To: "b", Target: "tcp:127.0.0.1:49300"}
	if got, err := c.AddForward(ctx, fwd); err != nil || got != fwd {
		t.Errorf("add forward: %+v, %v", got, err)
	}
	seg := gateway.Segment{Name: "prod", VNI: 100, Bridge: "br-prod", Sites: []string{"b"}}
	if got, err := c.AddSegment(ctx, seg); err != nil || got.Device != "lhvx100" {
		t.Errorf("add segment: %+v, %v", got, err)
	}
	if got, err := c.Segment(ctx, "prod"); err != nil || len(got.Bindings) != 1 {
		t.Errorf("segment: %+v, %v", got, err)
	}
	task, err := c.Seed(ctx, gateway.SeedRequest{Sources: []string{"/img/slow"}})
	if err != nil || task.ID != "store-1" || len(task.Peers) != 1 {
		t.Errorf("seed: %+v, %v", task, err)
	}
	if task, err = c.AbortStoreTask(ctx, task.ID); err != nil || task.State != gateway.TaskAborted {
		t.Errorf("abort of a task: %+v, %v", task, err)
	}
	if task, err = c.VerifyStore(ctx); err != nil || task.Kind != gateway.TaskVerify {
		t.Errorf("verify: %+v, %v", task, err)
	}
	if task, err = c.StoreTask(ctx, task.ID); err != nil || task.Done == 0 {
		t.Errorf("task: %+v, %v", task, err)
	}
	if all, err := c.StoreTasks(ctx); err != nil || len(all) != 2 {
		t.Errorf("tasks: %+v, %v", all, err)
	}
	if r, err := c.Store(ctx); err != nil || len(r.Peers) != 2 || r.Peers[0].Hits != 812345 {
		t.Errorf("store: %+v, %v", r, err)
	}
	tok, err := c.CreateToken(ctx, "b", 90*time.Second)
	if err != nil || tok.Token != "lhtok-b-90" || !tok.Expires.Equal(apitest.Epoch().Add(90*time.Second)) {
		t.Errorf("token: %+v, %v", tok, err)
	}
	if tok, err = c.CreateToken(ctx, "b", 0); err != nil || tok.Token != "lhtok-b-3600" {
		t.Errorf("token of the usual life: %+v, %v", tok, err)
	}
	if _, err := c.LinkTest(ctx, "b"); !errors.Is(err, gateway.ErrNotFound) {
		t.Errorf("a test before there was one: %v", err)
	}
	if lt, err := c.StartLinkTest(ctx, "b"); err != nil || lt.State != gateway.LinkTestRunning {
		t.Errorf("test of the link: %+v, %v", lt, err)
	}
	if _, err := c.StartLinkTest(ctx, "b"); !errors.Is(err, gateway.ErrBusy) {
		t.Errorf("a second test of the link: %v", err)
	}
	if err := c.StopLinkTest(ctx, "b"); err != nil {
		t.Error(err)
	}
	if lt, err := c.LinkTest(ctx, "b"); err != nil || lt.State != gateway.LinkTestFailed || lt.Error == "" {
		t.Errorf("a test that was stopped: %+v, %v", lt, err)
	}
	if err := c.Revoke(ctx, "b"); err != nil {
		t.Errorf("revoke: %v", err)
	}
	if got, err := c.Reload(ctx); err != nil || got.Restart != nil || fake.Reloads() != 1 {
		t.Errorf("reload: %v, %v; %d reloads", got, err, fake.Reloads())
	}
	if got, err := c.Reload(ctx); err != nil || !slices.Equal(got.Restart, []string{"listen"}) {
		t.Errorf("reload of a key that waits for a restart: %v, %v", got, err)
	}
	wantState := `job job-1 stuck a->b aborted
forward mig tcp:127.0.0.1:49300 -> b tcp:127.0.0.1:49300
segment prod vni 100 br-prod
task store-1 seed /img/slow aborted
task store-2 verify  running
revoked b
`
	if got := fake.String(); got != wantState {
		t.Errorf("state: %s", cmp.Diff(got, wantState))
	}
	if err := errors.Join(c.RemoveForward(ctx, "mig"), c.RemoveSegment(ctx, "prod")); err != nil {
		t.Errorf("remove: %v", err)
	}
	fwds, err := c.Forwards(ctx)
	segs, err2 := c.Segments(ctx)
	if err != nil || err2 != nil || len(fwds)+len(segs) != 0 {
		t.Errorf("after removal: %v %v, %v %v", fwds, segs, err, err2)
	}
}

func TestRecover(t *testing.T) {
	c := serve(t, apitest.New())
	for _, where := range []string{api.RecoverSource, api.RecoverDestination} {
		job, err := c.Migrate(t.Context(), gateway.MigrateRequest{VM: "doubt", To: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.RecoverJob(t.Context(), job.ID, where); !errors.Is(err, gateway.ErrBusy) {
			t.Errorf("recover before it is in doubt: %v", err)
		}
		stop := errors.New("in doubt")
		err = c.WatchJob(t.Context(), job.ID, func(ev gateway.JobEvent) error {
			if ev.Job.State == gateway.JobInDoubt {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) {
			t.Errorf("watch ended with %v", err)
		}
		job, err = c.RecoverJob(t.Context(), job.ID, where)
		if want := map[string]gateway.JobState{"source": gateway.JobFailed, "destination": gateway.JobDone}[where]; err != nil || job.State != want {
			t.Errorf("recover to %s: %s, %v; want %s", where, job.State, err, want)
		}
	}
	if _, err := c.RecoverJob(t.Context(), "job-1", "both"); !errors.Is(err, gateway.ErrInvalid) {
		t.Errorf("recover to both: %v", err)
	}
}

func TestErrors(t *testing.T) {
	fake := apitest.New()
	c := serve(t, fake)
	for _, tt := range []struct {
		give   error
		status int
		code   string
	}{
		{gateway.ErrNoVM, 404, "no-vm"},
		{gateway.ErrNoJob, 404, "no-job"},
		{gateway.ErrNoSite, 404, "no-site"},
		{gateway.ErrNotFound, 404, "not-found"},
		{gateway.ErrBusy, 409, "busy"},
		{gateway.ErrExists, 409, "exists"},
		{gateway.ErrInvalid, 422, "invalid"},
		{gateway.ErrUnavailable, 503, "unavailable"},
		{context.DeadlineExceeded, 504, "timeout"},
		{errors.New("disk on fire"), 500, "internal"},
	} {
		fake.Fail(fmt.Errorf("asking: %w", tt.give))
		_, err := c.Status(t.Context())
		var e *client.Error
		if !errors.As(err, &e) || e.Code != tt.code || e.Status != tt.status || e.Detail != "asking: "+tt.give.Error() {
			t.Errorf("%v: client got %#v", tt.give, err)
		}
		if tt.status != 500 && tt.status != 504 && !errors.Is(err, tt.give) {
			t.Errorf("%v: errors.Is does not find it in %v", tt.give, err)
		}
		if _, err := c.Job(t.Context(), "x"); !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%v: job: client got %#v", tt.give, err)
		}
		err = c.WatchJob(t.Context(), "x", nil)
		if !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%v: watch: client got %#v", tt.give, err)
		}
	}
	if !errors.Is(gateway.ErrNoVM, gateway.ErrNotFound) || errors.Is(gateway.ErrBusy, gateway.ErrNotFound) {
		t.Error("kinds of not found are wrong")
	}
}

func TestRefused(t *testing.T) {
	h := api.New(api.Config{Backend: apitest.New()}).Handler()
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     string // in the answer
	}{
		{"unknown path", "GET", "/v2/status", "", 404, `urn:longhaul:problem:not-found`},
		{"unknown method", "PATCH", "/v1/jobs", "", 404, `the API has no PATCH /v1/jobs`},
		{"no metrics", "GET", "/metrics", "", 404, `urn:longhaul:problem:not-found`},
		{"no body", "POST", "/v1/jobs", "", 400, `urn:longhaul:problem:invalid`},
		{"no JSON", "POST", "/v1/jobs", "{", 400, `urn:longhaul:problem:invalid`},
		{"missing field", "POST", "/v1/jobs", `{"vm":"db1"}`, 422, `expected required property to to be present`},
		{"unknown field", "POST", "/v1/jobs", `{"vm":"db1","to":"b","speed":1}`, 422, `body.speed`},
		{"negative rate", "POST", "/v1/jobs", `{"vm":"db1","to":"b","rate_bps":-1}`, 422, `body.rate_bps`},
		{"unknown kind", "POST", "/v1/forwards", `{"name":"x","listen":"tcp::1","to":"b","target":"tcp::1","kind":"y"}`, 422, `body.kind`},
		{"VNI too large", "POST", "/v1/segments", `{"name":"x","vni":16777216,"bridge":"br","sites":["b"]}`, 422, `body.vni`},
		{"unknown query", "GET", "/v1/vms?x=1", "", 422, `urn:longhaul:problem:invalid`},
		{"too large", "POST", "/v1/jobs", `{"vm":"` + strings.Repeat("x", 65<<10), 413, `urn:longhaul:problem:too-large`},
		{"nothing to seed", "POST", "/v1/store/seed", `{"sources":[]}`, 422, `body.sources`},
		{"no such task", "GET", "/v1/store/tasks/store-9", "", 404, `urn:longhaul:problem:not-found`},
		{"long id", "GET", "/v1/jobs/" + strings.Repeat("x", 65), "", 422, `path.id`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("got %d %s; want %d with %q", w.Code, w.Body, tt.status, tt.want)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

func TestListsAreNeverNull(t *testing.T) {
	h := api.New(api.Config{Backend: apitest.New()}).Handler()
	for _, path := range []string{"/v1/status", "/v1/vms", "/v1/jobs", "/v1/forwards", "/v1/segments", "/v1/store", "/v1/store/tasks"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if w.Code != 200 || strings.Contains(w.Body.String(), "null") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := api.New(api.Config{Backend: apitest.New(), Gatherer: reg, Registerer: reg}).Handler()
	get := func(path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		b, _ := io.ReadAll(w.Result().Body)
		return string(b)
	}
	get("/v1/vms")
	get("/v1/jobs/none")
	got := get("/metrics")
	for _, want := range []string{
		`longhaul_api_requests_total{operation="list-vms",status="200"} 1`,
		`longhaul_api_requests_total{operation="get-job",status="404"} 1`,
		`longhaul_api_watchers 0`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}
