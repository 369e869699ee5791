package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/longhaul-project/longhaul/gateway"
)

// TokenRequest asks for a join token.
type TokenRequest struct {
	Site string `json:"site" doc:"site that will join" example:"b" minLength:"1" maxLength:"63"`
	TTL  int64  `json:"ttl_s,omitempty" doc:"seconds for which the token can be used; 0 for an hour" minimum:"0" maximum:"2592000"`
}

// Token is a join token.
type Token struct {
	Token   string    `json:"token" doc:"the token, one line; whoever has it can join as the site, once"`
	Site    string    `json:"site" doc:"site that can join with it"`
	Expires time.Time `json:"expires" doc:"when it ends"`
}

// tokenTTL is long enough to walk to the other machine.
const tokenTTL = time.Hour

type bySite struct {
	Site string `path:"site" maxLength:"63" doc:"name of the site"`
}

// Reloaded is what a reload has left to do.
type Reloaded struct {
	Restart []string `json:"restart,omitempty" doc:"keys of the config that differ and wait for a restart"`
}

// addSite adds what concerns the gateway itself and its fleet.
func (s *Server) addSite(a huma.API) {
	handle(s, a, huma.Operation{
		OperationID: "get-status", Method: http.MethodGet, Path: "/v1/status", Tags: []string{"site"},
		Summary: "What is up: this gateway, its peers, its hosts",
	}, func(ctx context.Context, _ *none) (gateway.Status, error) {
		return s.backend.Status(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "doctor", Method: http.MethodGet, Path: "/v1/doctor", Tags: []string{"site"},
		Summary:     "Look at this gateway, its machine and its links",
		Description: "Takes some seconds when frames do not come back from other sites.",
	}, func(ctx context.Context, _ *none) (gateway.Checkup, error) {
		return s.backend.Doctor(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "list-vms", Method: http.MethodGet, Path: "/v1/vms", Tags: []string{"site"},
		Summary: "VMs of this site's hosts",
	}, func(ctx context.Context, _ *none) ([]gateway.VMInfo, error) {
		return s.backend.VMs(ctx)
	})
	handle(s, a, huma.Operation{
		OperationID: "reload", Method: http.MethodPost, Path: "/v1/reload", Tags: []string{"site"},
		Summary: "Read the config file again and apply the rates and the log level",
	}, func(ctx context.Context, _ *none) (Reloaded, error) {
		restart, err := s.backend.Reload(ctx)
		return Reloaded{Restart: restart}, err
	})
	handle(s, a, huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: "/v1/tokens", Tags: []string{"fleet"},
		Summary: "Make a join token for a site", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *request[TokenRequest]) (Token, error) {
		ttl := time.Duration(in.Body.TTL) * time.Second
		if ttl == 0 {
			ttl = tokenTTL
		}
		text, expires, err := s.backend.CreateToken(ctx, in.Body.Site, ttl)
		return Token{Token: text, Site: in.Body.Site, Expires: expires}, err
	})
	handle(s, a, huma.Operation{
		OperationID: "revoke-site", Method: http.MethodPost, Path: "/v1/sites/{site}/revoke", Tags: []string{"fleet"},
		Summary: "Shut a site's gateways out for good; tokens that have been made for it are void as well",
	}, func(ctx context.Context, in *bySite) (none, error) {
		return none{}, s.backend.Revoke(ctx, in.Site)
	})
}
