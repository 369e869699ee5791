package client

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/longhaul-project/longhaul/gateway"
	"github.com/longhaul-project/longhaul/gateway/api"
)

var (
	// ErrUnreachable: nobody answers at the socket.
	ErrUnreachable = errors.New("no gateway answers")

	// ErrCut: a watch ended before the job did.
	ErrCut = errors.New("the gateway ended the watch before the job had ended")

	errSilent = errors.New("the gateway does not answer in time")
)

// An Error is a problem that the gateway told. errors.Is finds the sentinel
// of package gateway that the gateway meant.
type Error struct {
	Code   string // such as "busy"; see package api
	Status int    // HTTP status
	Detail string // for people
}

func (e *Error) Error() string { return e.Detail }

// Is tells whether the gateway meant target.
func (e *Error) Is(target error) bool {
	meant := e.sentinel()
	return meant != nil && errors.Is(meant, target)
}

func (e *Error) sentinel() error {
	switch e.Code {
	case "no-vm":
		return gateway.ErrNoVM
	case "no-job":
		return gateway.ErrNoJob
	case "no-site":
		return gateway.ErrNoSite
	case "not-found":
		return gateway.ErrNotFound
	case "busy":
		return gateway.ErrBusy
	case "exists":
		return gateway.ErrExists
	case "invalid", "too-large":
		return gateway.ErrInvalid
	case "unavailable", "timeout":
		return gateway.ErrUnavailable
	}
	return nil
}

// maxProblem bounds a problem document, in bytes.
const maxProblem = 64 << 10

// readProblem takes whatever came with a status that is no success. A document
// that is none of ours (a proxy's page) becomes an internal error.
func readProblem(resp *http.Response) error {
	e := &Error{Code: "internal", Status: resp.StatusCode, Detail: "the gateway answered " + resp.Status}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "application/problem+json" {
		return e
	}
	var doc struct {
		Type   string `json:"type"`
		Detail string `json:"detail"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&doc) != nil {
		return e
	}
	if code, ok := strings.CutPrefix(doc.Type, api.TypePrefix); ok {
		e.Code = code
	}
	if doc.Detail != "" {
		e.Detail = doc.Detail
	}
	var details []string
	for _, sub := range doc.Errors {
		where := strings.TrimPrefix(strings.TrimPrefix(sub.Location, "body"), ".") // the key as the operator knows it
		details = append(details, strings.TrimPrefix(where+": ", ": ")+sub.Message)
	}
	if len(details) > 0 {
		e.Detail = strings.Join(details, "; ") // more than "validation failed"
	}
	return e
}
