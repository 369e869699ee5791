package api_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
	"github.com/longhaul-project/longhaul/gateway/api/apitest"
)

func TestWatch(t *testing.T) {
	for vm, want := range map[string]gateway.JobState{"db1": gateway.JobDone, "dies": gateway.JobFailed} {
		c := serve(t, apitest.New())
		job, err := c.Migrate(t.Context(), gateway.MigrateRequest{VM: vm, To: "b"})
		if err != nil {
			t.Fatal(err)
		}
		var last gateway.Job
		err = c.WatchJob(t.Context(), job.ID, func(ev gateway.JobEvent) error {
			last = ev.Job
			return nil
		})
		if err != nil || last.State != want || last.Ended == nil {
			t.Errorf("%s: watch ended with %v; last %+v", vm, err, last)
		}
		// One that comes late sees the end at once.
		n := 0
		err = c.WatchJob(t.Context(), job.ID, func(gateway.JobEvent) error { n++; return nil })
		if err != nil || n != 1 {
			t.Errorf("%s: late watch: %d events, %v", vm, n, err)
		}
	}
}

// A pipeListener gives connections in memory, which synctest can wait for.
type pipeListener struct {
	conns chan net.Conn // no room: Accept is ready when a client dials
	once  sync.Once
	done  chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	near, far := net.Pipe()
	l.conns <- far
	return near
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A busyJob sends as many events as anybody takes, and counts them.
type busyJob struct {
	*apitest.Fake
	n    int // events to send
	slow time.Duration
	sent chan int
}

func (b *busyJob) WatchJob(ctx context.Context, id string) (<-chan gateway.JobEvent, error) {
	out := make(chan gateway.JobEvent)
	go func() {
		defer close(out)
		for i := range b.n {
			ev := gateway.JobEvent{Job: gateway.Job{ID: id, Phase: strings.Repeat("x", 1000), Progress: gateway.JobProgress{Rounds: i + 1}}}
			select {
			case out <- ev:
			case <-ctx.Done():
				return
			}
		}
		b.sent <- b.n
		<-ctx.Done()
	}()
	return out, nil
}

func (b *busyJob) Status(ctx context.Context) (gateway.Status, error) {
	select {
	case <-time.After(b.slow):
		return gateway.Status{}, nil
	case <-ctx.Done():
		return gateway.Status{}, ctx.Err()
	}
}

// run serves b inside a bubble until f returns.
func run(t *testing.T, b api.Backend, f func(l *pipeListener)) {
	t.Helper()
	l := newPipeListener()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // the one result of Run
	go func() { ended <- api.New(api.Config{Backend: b}).Run(ctx, l) }()
	f(l)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func ask(t *testing.T, conn net.Conn, path string) (*http.Response, *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, r
}

// A watcher that reads nothing costs the job nothing, gets the newest state
// when it reads on, and is cut off when it does not.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busyJob{Fake: apitest.New(), n: 10_000, sent: make(chan int, 1)}
		run(t, b, func(l *pipeListener) {
			conn := l.dial()
			resp, _ := ask(t, conn, "/v1/jobs/j/events")
			if got := <-b.sent; got != b.n { // the job is through before we read one event
				t.Errorf("%d events sent", got)
			}
			body := bufio.NewScanner(resp.Body)
			events, last := 0, ""
			for !strings.Contains(last, `"rounds":10000,`) && body.Scan() {
				if line := body.Text(); strings.HasPrefix(line, "data: ") {
					events, last = events+1, line
				}
			}
			if events == 0 || events > 100 || !strings.Contains(last, `"rounds":10000,`) {
				t.Errorf("%d events, the last %.200q", events, last)
			}
			start := time.Now()
			for body.Scan() && !strings.HasPrefix(body.Text(), ": alive") {
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("sign of life after %v", took)
			}
			conn.Close()
		})
	})
}

func TestStuckWatcherIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busyJob{Fake: apitest.New(), n: 1, sent: make(chan int, 1)}
		run(t, b, func(l *pipeListener) {
			conn := l.dial()
			defer conn.Close()
			ask(t, conn, "/v1/jobs/j/events")
			time.Sleep(time.Minute) // of the bubble
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the server had not closed: %v", err)
			}
		})
	})
}

// The deadline for reading a request must not end one whose answer takes
// longer; that of the backend must.
func TestSlowBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for slow, want := range map[time.Duration]int{25 * time.Second: 200, time.Hour: 504} {
			run(t, &busyJob{Fake: apitest.New(), slow: slow}, func(l *pipeListener) {
				conn := l.dial()
				defer conn.Close()
				start := time.Now()
				resp, _ := ask(t, conn, "/v1/status")
				if resp.StatusCode != want || time.Since(start) > 30*time.Second {
					t.Errorf("backend that takes %v: %s after %v", slow, resp.Status, time.Since(start))
				}
			})
		}
	})
}

// A client that sends half a request is cut off.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, half := range []string{
			"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n",
			"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		} {
			run(t, apitest.New(), func(l *pipeListener) {
				conn := l.dial()
				defer conn.Close()
				start := time.Now()
				if _, err := io.WriteString(conn, half); err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, conn)
				if took := time.Since(start); took > 11*time.Second {
					t.Errorf("%q: cut off after %v", half, took)
				}
			})
		}
	})
}

// Stopping ends the watches and waits for the rest.
func TestStopEndsWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busyJob{Fake: apitest.New(), n: 1, slow: 3 * time.Second, sent: make(chan int, 1)}
		var status, watch net.Conn
		answered := make(chan int, 1) // the one answer
		start := time.Now()
		run(t, b, func(l *pipeListener) {
			watch, status = l.dial(), l.dial()
			resp, _ := ask(t, watch, "/v1/jobs/j/events")
			go io.Copy(io.Discard, resp.Body)
			go func() {
				resp, _ := ask(t, status, "/v1/status")
				answered <- resp.StatusCode
			}()
			synctest.Wait()
		})
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("stopping took %v", took)
		}
		if got := <-answered; got != 200 {
			t.Errorf("a request that ran was answered with %d", got)
		}
		watch.Close()
		status.Close()
	})
}

// However many watch, a job can still be aborted.
func TestManyWatchers(t *testing.T) {
	c := serve(t, apitest.New())
	if _, err := c.Migrate(t.Context(), gateway.MigrateRequest{VM: "stuck", To: "b"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	up := make(chan struct{}, 128) // one per watcher
	for range 128 {
		all.Go(func() {
			first := sync.OnceFunc(func() { up <- struct{}{} })
			c.WatchJob(ctx, "job-1", func(gateway.JobEvent) error { first(); return nil })
		})
	}
	for range 128 {
		<-up
	}
	if err := c.WatchJob(ctx, "job-1", nil); !errors.Is(err, gateway.ErrUnavailable) {
		t.Errorf("watcher 129: %v", err)
	}
	if job, err := c.AbortJob(ctx, "job-1"); err != nil || job.State != gateway.JobAborted {
		t.Errorf("abort: %v, %v", job.State, err)
	}
	all.Wait() // the abort has ended their job
	cancel()
}
