package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
)

// What one client may cost. The socket is local, so these guard against
// mistakes rather than malice: a script that opens a watch for each VM, a
// client that was stopped in the middle of a request.
const (
	maxBody     = 64 << 10 // bytes of a request; the largest real one is under 1 KiB
	maxHeader   = 16 << 10 // bytes
	maxConns    = 256      // connections at once
	maxWatchers = 128      // of them watching a job, so that there is always room to abort one

	readTimeout  = 10 * time.Second // for a whole request to arrive
	callTimeout  = 30 * time.Second // for the backend to answer
	writeTimeout = 10 * time.Second // for the client to take an answer or an event
	idleTimeout  = 2 * time.Minute  // between requests of a connection
	stopTimeout  = 5 * time.Second  // for requests to finish when the gateway stops
	keepAlive    = 15 * time.Second // between two signs of life on a silent watch
)

// Config of a server. Only Backend must be set.
type Config struct {
	Backend Backend
	// Version is told in the OpenAPI document. Empty means "dev".
	Version string
	// Gatherer is shown at /metrics. Nil means no such path.
	Gatherer prometheus.Gatherer
	// Registerer takes the server's own metrics. Nil keeps them to itself.
	Registerer prometheus.Registerer
	// Logger may be nil, which discards.
	Logger *slog.Logger
}

// A Server answers the API. It is made by New.
type Server struct {
	backend Backend
	log     *slog.Logger
	metrics *metrics
	handler http.Handler

	watchers chan struct{}  // one token per watch; its capacity is the limit
	stopping chan struct{}  // closed when Run ends, to end the watches
	requests sync.WaitGroup // handlers that run
}

// New makes a server. It panics if Backend is nil.
func New(cfg Config) *Server {
	if cfg.Backend == nil {
		panic("api: no backend")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	s := &Server{
		backend:  cfg.Backend,
		log:      cfg.Logger,
		metrics:  newMetrics(cfg.Registerer),
		watchers: make(chan struct{}, maxWatchers),
		stopping: make(chan struct{}),
	}
	s.handler = s.bounded(s.routes(cfg))
	return s
}

// Handler answers requests of the API, for a listener that is not Run's.
func (s *Server) Handler() http.Handler { return s.handler }

// Run serves on ln, which it closes, until ctx is done; then it lets running
// requests finish for a moment. It may be called once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer s.requests.Wait()
	defer cancel()
	srv := &http.Server{
		Handler:           s.handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      callTimeout + writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1) // so that Serve can end before anybody asks
	go func() { served <- srv.Serve(limit(ln, maxConns)) }()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serving the API: %w", err), srv.Close())
	case <-ctx.Done():
	}
	close(s.stopping)
	late, done := context.WithTimeout(base, stopTimeout)
	defer done()
	if err := srv.Shutdown(late); err != nil {
		s.log.Warn("cutting requests of the API short", "err", err)
		_ = srv.Close() // unblocks their reads and writes; the listener is closed already
	}
	<-served
	return nil
}

// routes builds the mux. The OpenAPI document is written once, here: huma
// would write it at the first request for it, without a lock (v2.37.2, api.go).
func (s *Server) routes(cfg Config) http.Handler {
	mux := http.NewServeMux()
	hc := huma.DefaultConfig("Longhaul gateway", cfg.Version)
	hc.Info.Description = "What one site gateway can do. Sizes are bytes, rates bits per second."
	hc.OpenAPIPath, hc.DocsPath, hc.SchemasPath = "", "", ""
	hc.CreateHooks = nil // no $schema links in answers: the documents are those of the CLI's --json
	hc.RejectUnknownQueryParameters = true
	hc.Transformers = []huma.Transformer{stampProblem}
	a := humago.New(mux, hc)
	s.addSite(a)
	s.addJobs(a)
	s.addForwards(a)
	s.addSegments(a)
	s.addLinks(a)
	s.addStore(a)
	finishSchemas(a.OpenAPI())
	serveDocument(mux, a.OpenAPI())
	if cfg.Gatherer != nil {
		mux.Handle("GET /metrics", MetricsHandler(cfg.Gatherer))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, newProblem(http.StatusNotFound, "not-found",
			fmt.Sprintf("the API has no %s %s", r.Method, r.URL.Path)))
	})
	return mux
}

// bounded takes the body in before anything else happens, and then lifts the
// read deadline: net/http goes on reading to notice a client that leaves,
// and would take the deadline for one and cancel the request (server.go,
// connReader.backgroundRead).
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		defer s.requests.Done()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			writeProblem(w, newProblem(http.StatusRequestEntityTooLarge, "too-large",
				fmt.Sprintf("a request may have %d bytes", maxBody)))
			return
		}
		if err != nil {
			writeProblem(w, newProblem(http.StatusBadRequest, "invalid", "reading the request: "+err.Error()))
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not all handlers have one
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}
