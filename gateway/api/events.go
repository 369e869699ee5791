package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/longhaul-project/longhaul/gateway"
)

// addWatch adds the stream of a job's events. It does not use huma's sse
// package: that one has answered 200 before the backend can say that there is
// no such job, prints to stderr, and knows no sign of life.
func (s *Server) addWatch(a huma.API) {
	event := a.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[gateway.JobEvent](), true, "JobEvent")
	op := huma.Operation{
		OperationID: "watch-job", Method: http.MethodGet, Path: "/v1/jobs/{id}/events", Tags: []string{"jobs"},
		Summary: "Follow a job until it ends",
		Description: "Server-sent events. The data of each \"job\" event is a JobEvent with the whole job: " + event.Ref +
			". The \"end\" event comes last. Comments are signs of life.",
		Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{"200": {
			Description: "Events until the job has ended",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}
	huma.Register(a, op, func(ctx context.Context, in *byID) (*huma.StreamResponse, error) {
		out, err := s.watch(ctx, in.ID)
		s.metrics.count(op.OperationID, err)
		return out, err
	})
}

func (s *Server) watch(ctx context.Context, id string) (*huma.StreamResponse, error) {
	select {
	case s.watchers <- struct{}{}:
	default:
		return nil, newProblem(http.StatusServiceUnavailable, "unavailable",
			fmt.Sprintf("%d clients watch jobs already", maxWatchers))
	}
	ctx, cancel := context.WithCancel(ctx)
	events, err := s.backend.WatchJob(ctx, id)
	if err != nil {
		cancel()
		<-s.watchers
		return nil, problemOf(s.note("watch-job", err))
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		var pump sync.WaitGroup
		defer func() {
			cancel()
			pump.Wait()
			<-s.watchers
		}()
		s.metrics.watchers.Inc()
		defer s.metrics.watchers.Dec()
		// One place: the newest event that the client has not been sent.
		latest := make(chan gateway.JobEvent, 1)
		pump.Go(func() { keepLatest(ctx, events, latest) })
		_, w := humago.Unwrap(hc)
		s.stream(ctx, w, latest)
	}}, nil
}

// keepLatest takes from in without ever waiting for the client. It closes out
// only when in was closed, so that a closed out means that the job has ended.
func keepLatest(ctx context.Context, in <-chan gateway.JobEvent, out chan gateway.JobEvent) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-in:
			if !ok {
				if ctx.Err() == nil {
					close(out)
				}
				return
			}
			select {
			case <-out: // the client was too slow for this one
			default:
			}
			out <- ev // has room: nobody else sends
		}
	}
}

// stream writes events until the job has ended, the client leaves or the
// server stops.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, events <-chan gateway.JobEvent) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	write := func(text []byte) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not all writers have one
		if _, err := w.Write(text); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	ok := write([]byte(": job events\n\n"))
	for ok {
		select {
		case <-ctx.Done():
			return
		case <-s.stopping:
			return
		case <-alive.C:
			ok = write([]byte(": alive\n\n"))
		case ev, more := <-events:
			if !more {
				write([]byte("event: end\ndata: {}\n\n"))
				return
			}
			ok = write(frame(ev))
		}
	}
}

// frame is one event on the wire. JSON has no raw newlines, so that one data
// line is enough.
func frame(ev gateway.JobEvent) []byte {
	fillSlices(reflect.ValueOf(&ev).Elem())
	var b bytes.Buffer
	b.WriteString("event: job\ndata: ")
	_ = json.NewEncoder(&b).Encode(ev) // a struct of plain fields; it ends with a newline
	b.WriteString("\n")
	return b.Bytes()
}
