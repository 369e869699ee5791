package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/longhaul-project/longhaul/gateway"
)

// addLinks adds tests of the links to other sites.
func (s *Server) addLinks(a huma.API) {
	tags := []string{"links"}
	const path = "/v1/links/{site}/test"
	handle(s, a, huma.Operation{
		OperationID: "start-link-test", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Begin to measure what the link to a site carries",
		Description: "It takes less than 15 seconds and sends as much as the link carries, first there, then back. " +
			"Moves come first. Ask for it to learn how it stands.",
		DefaultStatus: http.StatusAccepted,
		Errors:        []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *bySite) (gateway.LinkTest, error) {
		return s.backend.StartLinkTest(ctx, in.Site)
	})
	handle(s, a, huma.Operation{
		OperationID: "get-link-test", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "The newest test of the link to a site, as far as it is", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *bySite) (gateway.LinkTest, error) {
		return s.backend.LinkTest(ctx, in.Site)
	})
	handle(s, a, huma.Operation{
		OperationID: "stop-link-test", Method: http.MethodDelete, Path: path, Tags: tags,
		Summary: "End the test of the link to a site", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *bySite) (none, error) {
		return none{}, s.backend.StopLinkTest(ctx, in.Site)
	})
}
