package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/longhaul-project/longhaul/gateway"
)

// RateRequest changes the cap of a move.
type RateRequest struct {
	Rate int64 `json:"rate_bps" doc:"cap in bits per second; 0 lifts it" minimum:"0"`
}

// RecoverRequest ends a job in doubt.
type RecoverRequest struct {
	Run string `json:"run" doc:"where the VM shall run; the other copy is ended" enum:"source,destination"`
}

type (
	// rateInput repeats the ID: huma does not look into embedded types that are not
	// exported.
	rateInput struct {
		ID   string `path:"id" maxLength:"64" doc:"identifier of the job"`
		Body RateRequest
	}
	recoverInput struct {
		ID   string `path:"id" maxLength:"64" doc:"identifier of the job"`
		Body RecoverRequest
	}
)

// addJobs adds moves and what can be done with them.
func (s *Server) addJobs(a huma.API) {
	tags := []string{"jobs"}
	handle(s, a, huma.Operation{
		OperationID: "migrate", Method: http.MethodPost, Path: "/v1/jobs", Tags: tags,
		Summary: "Move a VM to another site", DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *request[gateway.MigrateRequest]) (gateway.Job, error) {
		return s.backend.Migrate(ctx, in.Body)
	})
	handle(s, a, huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: "/v1/jobs", Tags: tags,
		Summary: "Jobs that this gateway knows, the newest last",
	}, func(ctx context.Context, _ *none) ([]gateway.Job, error) {
		return s.backend.Jobs(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: "/v1/jobs/{id}", Tags: tags,
		Summary: "One job", Errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, in *byID) (gateway.Job, error) {
		return s.backend.Job(ctx, in.ID)
	})
	s.addWatch(a)
	handle(s, a, huma.Operation{
		OperationID: "abort-job", Method: http.MethodPost, Path: "/v1/jobs/{id}/abort", Tags: tags,
		Summary: "End a move; the VM goes on at its source",
		Errors:  []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *byID) (gateway.Job, error) {
		return s.backend.AbortJob(ctx, in.ID)
	})
	handle(s, a, huma.Operation{
		OperationID: "recover-job", Method: http.MethodPost, Path: "/v1/jobs/{id}/recover", Tags: tags,
		Summary:     "End a job in doubt: say where the VM shall run",
		Description: "The job's safe_action says which side is safe. The other copy is ended.",
		Errors:      []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *recoverInput) (gateway.Job, error) {
		return s.backend.RecoverJob(ctx, in.ID, in.Body.Run)
	})
	handle(s, a, huma.Operation{
		OperationID: "set-job-rate", Method: http.MethodPut, Path: "/v1/jobs/{id}/rate", Tags: tags,
		Summary: "Cap a move while it runs",
		Errors:  []int{http.StatusNotFound, http.StatusConflict},
	}, func(ctx context.Context, in *rateInput) (gateway.Job, error) {
		return s.backend.SetJobRate(ctx, in.ID, in.Body.Rate)
	})
}
