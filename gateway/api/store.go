package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/longhaul-project/longhaul/gateway"
)

// addStore adds the content store and the work on it.
func (s *Server) addStore(a huma.API) {
	tags := []string{"store"}
	handle(s, a, huma.Operation{
		OperationID: "get-store", Method: http.MethodGet, Path: "/v1/store", Tags: tags,
		Summary: "What the content stores hold, for each peer and of this site's own",
	}, func(ctx context.Context, _ *none) (gateway.StoreReport, error) {
		return s.backend.StoreReport(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "seed-store", Method: http.MethodPost, Path: "/v1/store/seed", Tags: tags,
		Summary: "Make templates, ISO files and disk images known to this site and its peers", DefaultStatus: http.StatusCreated,
		Description: "The task goes on without its client, and under its name after a restart of the gateway. Asking again after an abort or a failure goes on where it was: what was read and has not changed is not read again.",
		Errors:      []int{http.StatusConflict},
	}, func(ctx context.Context, in *request[gateway.SeedRequest]) (gateway.StoreTask, error) {
		return s.backend.Seed(ctx, in.Body)
	})
	handle(s, a, huma.Operation{
		OperationID: "verify-store", Method: http.MethodPost, Path: "/v1/store/verify", Tags: tags,
		Summary: "Read all that is on disk and drop what is damaged", DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusConflict},
	}, func(ctx context.Context, _ *none) (gateway.StoreTask, error) {
		return s.backend.VerifyStore(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "list-store-tasks", Method: http.MethodGet, Path: "/v1/store/tasks", Tags: tags,
		Summary: "Work on the store since this gateway started, the newest last",
	}, func(ctx context.Context, _ *none) ([]gateway.StoreTask, error) {
		return s.backend.StoreTasks(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "get-store-task", Method: http.MethodGet, Path: "/v1/store/tasks/{id}", Tags: tags,
		Summary: "One task and how far it is", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *byID) (gateway.StoreTask, error) {
		return s.backend.StoreTask(ctx, in.ID)
	})
	handle(s, a, huma.Operation{
		OperationID: "abort-store-task", Method: http.MethodPost, Path: "/v1/store/tasks/{id}/abort", Tags: tags,
		Summary: "End a task; what it has done stays done", Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *byID) (gateway.StoreTask, error) {
		return s.backend.AbortStoreTask(ctx, in.ID)
	})
}
