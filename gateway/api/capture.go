package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/longhaul-project/longhaul/gateway"
)

// unstretch is the request of that name.
type unstretch struct {
	Name string `path:"name" doc:"name of the segment"`
	Body gateway.UnstretchRequest
}

// capture says what of a segment's frames is wanted.
type capture struct {
	Name   string `path:"name" doc:"name of the segment"`
	Snap   int    `query:"snap" minimum:"0" maximum:"65536" doc:"bytes kept of each frame; 0 means all"`
	Frames int    `query:"frames" minimum:"0" doc:"end after so many frames; 0 means no limit"`
	Bytes  int64  `query:"bytes" minimum:"0" doc:"end before there are more bytes; 0 means no limit"`
	Only   string `query:"only" enum:"in,out" doc:"only frames from other sites (in), or from this one (out)"`
}

// addCapture adds the stream of a segment's frames.
func (s *Server) addCapture(a huma.API) {
	op := huma.Operation{
		OperationID: "capture-segment", Method: http.MethodGet, Path: "/v1/segments/{name}/capture", Tags: []string{"segments"},
		Summary:     "Frames of a segment as a pcap file, as they pass",
		Description: "Ends after as many frames as were asked for, or when the client leaves. Frames that pass faster than the client takes them are left out.",
		Errors:      []int{http.StatusNotFound, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{"200": {
			Description: "A pcap file",
			Content:     map[string]*huma.MediaType{"application/vnd.tcpdump.pcap": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
		}},
	}
	huma.Register(a, op, func(ctx context.Context, in *capture) (*huma.StreamResponse, error) {
		out, err := s.capture(ctx, in)
		s.metrics.count(op.OperationID, err)
		return out, err
	})
}

func (s *Server) capture(ctx context.Context, in *capture) (*huma.StreamResponse, error) {
	if _, err := s.backend.Segment(ctx, in.Name); err != nil {
		return nil, problemOf(s.note("capture-segment", err))
	}
	select {
	case s.watchers <- struct{}{}:
	default:
		return nil, newProblem(http.StatusServiceUnavailable, "unavailable", fmt.Sprintf("%d clients watch already", maxWatchers))
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer func() { <-s.watchers }()
		ctx, cancel := context.WithCancel(ctx)
		var end sync.WaitGroup
		defer end.Wait()
		defer cancel()
		end.Go(func() {
			select {
			case <-s.stopping:
				cancel()
			case <-ctx.Done():
			}
		})
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/vnd.tcpdump.pcap")
		rc := http.NewResponseController(w)
		request := gateway.CaptureRequest{Snap: in.Snap, Frames: in.Frames, Only: in.Only, Bytes: in.Bytes}
		err := s.backend.CaptureSegment(ctx, in.Name, request, func(b []byte) error {
			_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not all writers have one
			if _, err := w.Write(b); err != nil {
				return err
			}
			return rc.Flush()
		})
		if err != nil && ctx.Err() == nil {
			s.log.Debug("capture ended", "segment", in.Name, "err", err)
		}
	}}, nil
}
