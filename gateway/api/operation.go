package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

type (
	reply[O any]   struct{ Body O }
	request[B any] struct{ Body B }
	none           struct{}

	// byName are the paths that name one thing.
	byName struct {
		Name string `path:"name" maxLength:"64" doc:"name"`
	}
	byMAC struct {
		Name string `path:"name" maxLength:"64" doc:"name of the segment"`
		MAC  string `path:"mac" maxLength:"17" doc:"MAC address" example:"52:54:00:00:00:01"`
	}
	byID struct {
		ID string `path:"id" maxLength:"64" doc:"identifier of the job"`
	}
)

// handle adds an operation that answers with a document, or with nothing if O is none.
func handle[I, O any](s *Server, a huma.API, op huma.Operation, f func(context.Context, *I) (O, error)) {
	op.MaxBodyBytes = maxBody
	op.BodyReadTimeout = -1 // see bounded
	op.Errors = append(op.Errors, http.StatusServiceUnavailable, http.StatusGatewayTimeout)
	call := func(ctx context.Context, in *I) (out O, err error) {
		defer func() { s.metrics.count(op.OperationID, err) }()
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if out, err = f(ctx, in); err != nil {
			return out, problemOf(s.note(op.OperationID, err))
		}
		fillSlices(reflect.ValueOf(&out).Elem())
		return out, nil
	}
	if reflect.TypeFor[O]() == reflect.TypeFor[none]() {
		op.DefaultStatus = http.StatusNoContent
		huma.Register(a, op, func(ctx context.Context, in *I) (*none, error) {
			_, err := call(ctx, in)
			return nil, err
		})
		return
	}
	huma.Register(a, op, func(ctx context.Context, in *I) (*reply[O], error) {
		out, err := call(ctx, in)
		if err != nil {
			return nil, err
		}
		return &reply[O]{out}, nil
	})
}

// note logs what is the gateway's fault. What is the client's, the client is told.
func (s *Server) note(operation string, err error) error {
	if _, code := classify(err); code == "internal" {
		s.log.Warn("request failed", "operation", operation, "err", err)
	}
	return err
}

// fillSlices makes the nil slices in v empty, so that an empty list is
// written as [] and a client need not know null.
func fillSlices(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fillSlices(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillSlices(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		for i := range v.Len() {
			fillSlices(v.Index(i))
		}
	}
}

// finishSchemas says in the document what fillSlices does: a list is never null.
func finishSchemas(doc *huma.OpenAPI) {
	for _, schema := range doc.Components.Schemas.Map() {
		neverNull(schema)
	}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil {
				continue
			}
			for _, r := range op.Responses {
				for _, m := range r.Content {
					neverNull(m.Schema)
				}
			}
		}
	}
}

func neverNull(s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
	}
	neverNull(s.Items)
	for _, p := range s.Properties {
		neverNull(p)
	}
}

// serveDocument adds the OpenAPI document. It cannot fail for a document that
// our own types make, which a test checks.
func serveDocument(mux *http.ServeMux, doc *huma.OpenAPI) {
	asJSON, err := doc.MarshalJSON()
	if err != nil {
		panic(fmt.Sprintf("api: writing the OpenAPI document: %v", err))
	}
	asYAML, err := doc.YAML()
	if err != nil {
		panic(fmt.Sprintf("api: writing the OpenAPI document: %v", err))
	}
	give := func(kind string, b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(b) // the client is gone; nobody to tell
		}
	}
	mux.HandleFunc("GET /openapi.json", give("application/openapi+json", asJSON))
	mux.HandleFunc("GET /openapi.yaml", give("application/openapi+yaml", asYAML))
}
