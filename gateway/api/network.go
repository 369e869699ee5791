package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/longhaul-project/longhaul/gateway"
)

// addForwards adds the fixed ports.
func (s *Server) addForwards(a huma.API) {
	tags := []string{"forwards"}
	handle(s, a, huma.Operation{
		OperationID: "list-forwards", Method: http.MethodGet, Path: "/v1/forwards", Tags: tags,
		Summary: "Local ports that come out at another site",
	}, func(ctx context.Context, _ *none) ([]gateway.Forward, error) {
		return s.backend.Forwards(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "add-forward", Method: http.MethodPost, Path: "/v1/forwards", Tags: tags,
		Summary: "Add a forward", DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *request[gateway.Forward]) (gateway.Forward, error) {
		return s.backend.AddForward(ctx, in.Body)
	})
	handle(s, a, huma.Operation{
		OperationID: "remove-forward", Method: http.MethodDelete, Path: "/v1/forwards/{name}", Tags: tags,
		Summary: "Remove a forward; its open connections end", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *byName) (none, error) {
		return none{}, s.backend.RemoveForward(ctx, in.Name)
	})
}

// addSegments adds the stretched Layer 2 networks.
func (s *Server) addSegments(a huma.API) {
	tags := []string{"segments"}
	handle(s, a, huma.Operation{
		OperationID: "list-segments", Method: http.MethodGet, Path: "/v1/segments", Tags: tags,
		Summary: "Stretched Layer 2 segments at this site",
	}, func(ctx context.Context, _ *none) ([]gateway.Segment, error) {
		return s.backend.Segments(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "get-segment", Method: http.MethodGet, Path: "/v1/segments/{name}", Tags: tags,
		Summary: "One segment and who owns which MAC on it", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *byName) (gateway.Segment, error) {
		return s.backend.Segment(ctx, in.Name)
	})
	handle(s, a, huma.Operation{
		OperationID: "add-segment", Method: http.MethodPost, Path: "/v1/segments", Tags: tags,
		Summary: "Stretch a segment from this site", DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *request[gateway.Segment]) (gateway.Segment, error) {
		return s.backend.AddSegment(ctx, in.Body)
	})
	handle(s, a, huma.Operation{
		OperationID: "unstretch-segment", Method: http.MethodPost, Path: "/v1/segments/{name}/unstretch", Tags: tags,
		Summary:     "End a segment at this site, if no host depends on it",
		Description: "The answer lists the hosts that depend on the segment. It is cut when there are none, or when force is set.",
		Errors:      []int{http.StatusNotFound},
	}, func(ctx context.Context, in *unstretch) (gateway.Unstretched, error) {
		return s.backend.UnstretchSegment(ctx, in.Name, in.Body)
	})
	s.addCapture(a)
	handle(s, a, huma.Operation{
		OperationID: "remove-segment", Method: http.MethodDelete, Path: "/v1/segments/{name}", Tags: tags,
		Summary: "Stop stretching a segment from this site", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *byName) (none, error) {
		return none{}, s.backend.RemoveSegment(ctx, in.Name)
	})
	handle(s, a, huma.Operation{
		OperationID: "clear-mac", Method: http.MethodPost, Path: "/v1/segments/{name}/bindings/{mac}/clear", Tags: tags,
		Summary: "Let a MAC go where it is next seen, after two sites have claimed it in turn", Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, func(ctx context.Context, in *byMAC) (none, error) {
		return none{}, s.backend.ClearMAC(ctx, in.Name, in.MAC)
	})
}
