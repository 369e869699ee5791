package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/longhaul-project/longhaul/gateway"
)

// TypePrefix stands before the code in the type of a problem document.
const TypePrefix = "urn:longhaul:problem:"

// classify tells the status and the code of an error of the backend. The
// special cases of ErrNotFound stand before it.
func classify(err error) (status int, code string) {
	switch {
	case errors.Is(err, gateway.ErrNoVM):
		return http.StatusNotFound, "no-vm"
	case errors.Is(err, gateway.ErrNoJob):
		return http.StatusNotFound, "no-job"
	case errors.Is(err, gateway.ErrNoSite):
		return http.StatusNotFound, "no-site"
	case errors.Is(err, gateway.ErrNotFound):
		return http.StatusNotFound, "not-found"
	case errors.Is(err, gateway.ErrBusy):
		return http.StatusConflict, "busy"
	case errors.Is(err, gateway.ErrExists):
		return http.StatusConflict, "exists"
	case errors.Is(err, gateway.ErrInvalid):
		return http.StatusUnprocessableEntity, "invalid"
	case errors.Is(err, gateway.ErrUnavailable):
		return http.StatusServiceUnavailable, "unavailable"
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, "timeout"
	}
	return http.StatusInternalServerError, "internal"
}

// codeOf is the code of a problem that huma or the server itself found.
func codeOf(status int) string {
	switch status {
	case http.StatusNotFound:
		return "not-found"
	case http.StatusRequestEntityTooLarge:
		return "too-large"
	case http.StatusServiceUnavailable:
		return "unavailable"
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return "timeout"
	}
	if status >= 500 {
		return "internal"
	}
	return "invalid"
}

func newProblem(status int, code, detail string) *huma.ErrorModel {
	return &huma.ErrorModel{
		Type:   TypePrefix + code,
		Title:  http.StatusText(status),
		Status: status,
		Detail: detail,
	}
}

func problemOf(err error) *huma.ErrorModel {
	status, code := classify(err)
	return newProblem(status, code, err.Error())
}

// stampProblem gives huma's own errors (validation) a type. huma has a
// package-level hook for its errors; a transformer does it without touching
// the state of a package that others may use too.
func stampProblem(_ huma.Context, status string, v any) (any, error) {
	if p, ok := v.(*huma.ErrorModel); ok && p.Type == "" {
		n, _ := strconv.Atoi(status)
		p.Type = TypePrefix + codeOf(n)
	}
	return v, nil
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *huma.ErrorModel) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone; nobody to tell
}
